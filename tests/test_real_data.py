"""Real data in their original layouts, a few steps of each through the whole pipeline: every table is filled."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.io import loadmat, savemat

from kd_ray.cluster.launch import launch
from kd_ray.data.families import fingerprint
from kd_ray.results.query import Results
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store
from kd_ray.sweep.load import load_sweep

pytestmark = pytest.mark.long

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
SMALL = ("teacher={model: resnet20, seed: [0]}", "student.model=lenet5")


def tiny_imagenet(source: Path, root: Path) -> None:
    """Four classes of the original archive, 25 training and 10 validation images of each."""
    with zipfile.ZipFile(source / "tiny-imagenet" / "tiny-imagenet-200-mini.zip") as archive:
        wnids = archive.read("tiny-imagenet-200/wnids.txt").decode().split()[:4]
        lines = archive.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()
        kept = [line for line in lines if line.split("\t")[1] in wnids]
        names = [name for name in archive.namelist() if name.split("/")[-3:-2] and name.split("/")[-3] in wnids]
        names += [f"tiny-imagenet-200/val/images/{line.split(chr(9))[0]}" for line in kept]
        archive.extractall(root, [*names, "tiny-imagenet-200/words.txt"])
    folder = root / "tiny-imagenet-200"
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(kept) + "\n")


def svhn(source: Path, root: Path) -> None:
    """The first 100 test digits, of which 60 stand in for the training file, which is not at hand."""
    digits = loadmat(source / "svhn-mini" / "test_32x32.mat")
    (root / "svhn").mkdir(parents=True)
    for split, part in (("train", slice(60)), ("test", slice(60, None))):
        savemat(root / "svhn" / f"{split}_32x32.mat", {"X": digits["X"][..., part], "y": digits["y"][part]})


def celeba(source: Path, root: Path) -> None:
    """32 faces; all are training images in the original partition, so the last twelve are made test images."""
    shutil.copytree(source / "celeba-mini" / "celeba", root / "celeba")
    partition = root / "celeba" / "list_eval_partition.txt"
    partition.chmod(0o644)
    (root / "celeba").chmod(0o755)
    names = [line.split()[0] for line in partition.read_text().splitlines()]
    partition.write_text("".join(f"{name} {2 if n >= 20 else 0}\r\n" for n, name in enumerate(names)))


def imagenet(source: Path, root: Path) -> None:
    """One image each of ten classes, full size, in both splits: there is no more of a class."""
    with zipfile.ZipFile(source / "imagenet-sample-100" / "imagenet-sample-100.zip") as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith((".JPEG", ".jpg")))[:10]:
            wnid = name.split("/")[-2]
            for split in ("train", "val"):
                path = root / "imagenet" / split / wnid / f"{wnid}.JPEG"
                path.parent.mkdir(parents=True)
                path.write_bytes(archive.read(name))


def adult(source: Path, root: Path) -> None:
    """All of it."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "adult").symlink_to(source / "adult")


CASES: dict[str, tuple[Callable[[Path, Path], None], tuple[str, ...], int]] = {
    "tiny-imagenet": (tiny_imagenet, ("dataset.num_classes=4", *SMALL), 40),
    "svhn": (svhn, SMALL, 40),
    "celeba-young": (celeba, ("dataset.size=64", *SMALL), 12),
    "imagenet-resnet": (imagenet, ("dataset.num_classes=10", *SMALL), 10),
    "adult": (adult, (), 15_060),
}
"""Sweep file → how its data are put in place, what makes it small, and the number of test samples."""


@pytest.mark.parametrize("name", CASES)
def test_real_data_train_and_fill_every_table(name: str, shared_data: Path, store: Store, tmp_path: Path) -> None:
    put, overrides, num_test = CASES[name]
    root = tmp_path / "data"
    put(shared_data, root)
    small = [
        *overrides, "training.epochs=1", "training.batch_size=64", "training.schedule={name: constant}", "training.optimizer.lr=0.001",
        "grid.seed=[0]", "grid.temperature=[4]", "placement={cpus_per_pack: 1}", f"placement.data_root={root}",
    ]  # fmt: skip
    dataset = load_sweep(SWEEPS / f"{name}.yaml", small).sweep.dataset
    version = fingerprint(dataset, root)
    file = load_sweep(SWEEPS / f"{name}.yaml", [*small, f"dataset.version='{version}'"])
    report = launch(file, store, runner="local")
    assert (report.exit_code, len(report.trials), report.problems) == (0, 3, ())
    results = Results(store)
    of_groups = set() if file.sweep.sensitive_features else {"group_metrics", "fairness_metrics"}
    for table in set(TABLES) - of_groups:
        assert results.table(table, sweep=name).num_rows > 0, table
    assert results.query("SELECT count(*) AS n FROM samples")["n"].to_pylist() == [num_test]
    counts = results.query("SELECT sum(n) AS n FROM class_metrics GROUP BY trial_id")["n"].to_pylist()
    assert counts == [num_test] * 3
    if file.sweep.sensitive_features:
        sums = results.query(
            "SELECT feature, sum(n) AS n FROM group_metrics WHERE role = 'teacher' AND positive_class = "
            "(SELECT max(positive_class) FROM group_metrics) GROUP BY 1"
        )
        assert dict(zip(sums["feature"].to_pylist(), sums["n"].to_pylist(), strict=True)) == {
            **dict.fromkeys(file.sweep.sensitive_features, num_test),
            **{" & ".join(names): num_test for names in file.sweep.intersections},
        }
