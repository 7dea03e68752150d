"""Which sets at a URL a sweep needs, and the sweep with its data on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kd_ray.cluster.shared_data.fetch_data import FoundSet
from kd_ray.cluster.shared_data.find_sets import find_sets, missing_sets, with_local_data
from kd_ray.cluster.shared_data.push_data import push
from kd_ray.cluster.shared_data.set_files import sets_of, wanted_sets
from kd_ray.data.families import fingerprint
from kd_ray.errors import DataError
from kd_ray.results.store import open_store
from kd_ray.sweep.load import parse_dataset
from tests.datasets import write_bert, write_hatexplain
from tests.shared_data import cifar, contents, let_go_of_all
from tests.sweeps import tiny_sweep

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _nothing_stays_in_use() -> Iterator[None]:
    yield
    let_go_of_all()


def test_a_drawn_set_needs_nothing(tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path, f"placement.data_url={tmp_path}/url")
    assert wanted_sets(file) == ()
    assert with_local_data(file) is file


def test_a_set_has_one_name_whatever_is_done_with_it() -> None:
    names = {sets_of(parse_dataset("cifar10", settings))[0].name for settings in ((), ("validation_fraction=0.1",))}
    assert names == {"cifar10-600b17c1"}
    assert sets_of(parse_dataset("svhn"))[0].name != sets_of(parse_dataset("svhn", ("extra=true",)))[0].name


CIFAR = (
    "dataset={name: cifar10, version: 92d74d05f039e59e}",
    "sensitive_features=null",
    "intersections=null",
    "teacher.model=lenet5",
)


def test_the_sweep_reads_its_data_from_the_fetched_folder(tmp_path: Path) -> None:
    report, url = cifar(tmp_path)
    file = tiny_sweep(tmp_path / "node", *CIFAR, f"placement.data_url={url}")
    assert report.index.version == "92d74d05f039e59e"
    assert find_sets(file) == (FoundSet(url=str(url), what="cifar10", index=report.index),)
    local = with_local_data(file)
    folder = Path(local.sweep.placement.data_root)
    assert folder.parent == tmp_path / "node" / "fetched"
    assert local.sweep.placement.data_url is None
    assert local.cell({"seed": 0, "temperature": 1}).placement == local.sweep.placement
    assert fingerprint(local.sweep.dataset, folder) == "92d74d05f039e59e"
    # Nothing but the placement has changed.
    assert local.sweep.model_copy(update={"placement": file.sweep.placement}) == file.sweep


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path / "node", *CIFAR, f"placement.data_url={tmp_path}/url")
    message = (
        f"tiny.yaml: placement.data_url: data set cifar10: {tmp_path}/url does not have it; "
        f"`kd-ray data push tiny.yaml {tmp_path}/url` puts it there"
    )
    with pytest.raises(DataError) as refused:
        find_sets(file)
    assert str(refused.value) == message
    assert missing_sets(file) == [f"cifar10 at {tmp_path}/url"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("hf://lab/data", "'hf://lab/data' must be hf://datasets/OWNER/NAME"),
        ("ftp://lab/data", "store ftp://lab/data: unknown scheme .*; valid: a local path, s3://"),
    ],
)
def test_a_url_that_no_place_can_have_is_refused(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"placement.data_url: {says}"):
        find_sets(tiny_sweep(tmp_path, *CIFAR, f"placement.data_url={url}"))


def test_networks_of_texts_travel_with_their_data(tmp_path: Path) -> None:
    root = write_bert(write_hatexplain(tmp_path / "data"), weights=False)
    (root / "models" / "tiny-bert" / "code.py").write_text("print('not sent')")
    dataset = "dataset={name: hatexplain, target: toxic, tokenizer: 'hf:tiny-bert', max_length: 16}"
    file = tiny_sweep(
        tmp_path / "node",
        dataset,
        "sensitive_features=null",
        "intersections=null",
        "teacher.model='hf:tiny-bert'",
        "student.model='hf:tiny-bert'",
        "training.augmentation=null",
        f"placement.data_url={tmp_path}/url",
    )
    sets = wanted_sets(file)
    assert [it.what for it in sets] == ["hatexplain", "hf:tiny-bert"]
    for wanted in sets:
        push(wanted, root, open_store(tmp_path / "url"))
    folder = Path(with_local_data(file).sweep.placement.data_root)
    names = {f"models/tiny-bert/{name}" for name in ("config.json", "vocab.txt", "tokenizer_config.json")}
    assert set(contents(folder)) == names | {f"hatexplain/Data/{it}.json" for it in ("dataset", "post_id_divisions")}
