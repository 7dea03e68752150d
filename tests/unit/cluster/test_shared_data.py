"""Data sets at a URL: what is pushed comes back the same, once for each node, and nothing that is in use is deleted."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kd_ray.cluster.shared_data import fetched_sets
from kd_ray.cluster.shared_data.data_index import read_index
from kd_ray.cluster.shared_data.fetch_data import order
from kd_ray.cluster.shared_data.set_files import files_of, sets_of
from kd_ray.cluster.shared_data.shards import packed, parts_of
from kd_ray.data.families import fingerprint
from kd_ray.errors import CacheError, CorruptObjectError, StoreError
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.load import parse_dataset
from tests.datasets import (
    write_adult,
    write_celeba,
    write_cifar10,
    write_imagenet,
    write_people,
    write_svhn,
    write_table,
)
from tests.shared_data import cifar, contents, fetched, let_go, let_go_of_all, pushed

pytestmark = pytest.mark.slow

PEOPLE = (
    "path=people/people.csv",
    "classes=['no','yes']",
    "features=[race]",
    "separator=;",
    "split=split",
    "size=16",
)


@pytest.fixture(autouse=True)
def _nothing_stays_in_use() -> Iterator[None]:
    yield
    let_go_of_all()


@pytest.mark.parametrize(
    ("name", "settings", "write"),
    [
        ("cifar10", (), write_cifar10),
        ("svhn", ("extra=true",), lambda root: write_svhn(root, extra=30)),
        ("imagenet", ("size=16", "num_classes=2"), write_imagenet),
        ("celeba", ("size=16",), write_celeba),
        ("adult", (), write_adult),
        ("manifest", PEOPLE, write_people),
        ("manifest", ("path=table/loans.csv", "columns=[income]", "classes=['no','yes']", "split=split"), write_table),
    ],
)
def test_what_is_fetched_is_what_was_pushed(
    name: str, settings: tuple[str, ...], write: Callable[[Path], Path], tmp_path: Path
) -> None:
    dataset = parse_dataset(name, settings)
    root = write(tmp_path / "data")
    (wanted,) = sets_of(dataset)
    version = fingerprint(dataset, root)
    files = {name: path.read_bytes() for name, path in files_of(wanted, root).items()}
    report = pushed(dataset, root, tmp_path / "url")
    assert report.index.version == version
    assert report.index.num_files == len(files)
    assert len(report.index.shards) > 1 or sum(map(len, files.values())) < 2**14
    nodes = [fetched(report, tmp_path / "url", tmp_path / node) for node in ("a", "b")]
    for folder in nodes:
        assert contents(folder) == files
        assert fingerprint(dataset, folder) == version


def test_files_that_the_list_does_not_name_stay_where_they_are(tmp_path: Path) -> None:
    root = write_people(tmp_path / "data")
    (root / "people" / "private.txt").write_text("not for others")
    report = pushed(parse_dataset("manifest", PEOPLE), root, tmp_path / "url")
    assert "people/private.txt" not in contents(fetched(report, tmp_path / "url", tmp_path / "node"))


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path / "elsewhere")
    linked = tmp_path / "data"
    linked.mkdir()
    (linked / "imagenet").symlink_to(root / "imagenet")
    (root / "imagenet" / "train" / "around").symlink_to(root / "imagenet")
    (wanted,) = sets_of(parse_dataset("imagenet", ("size=16", "num_classes=2")))
    assert set(files_of(wanted, linked)) >= {
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "around" not in path.parts
    }


def test_an_unchanged_set_sends_nothing_and_a_changed_one_keeps_the_old(tmp_path: Path) -> None:
    first, url = cifar(tmp_path)
    before = contents(url)
    again, _ = cifar(tmp_path)
    assert (first.num_sent, again.num_sent, again.sent_bytes) == (len(first.index.shards), 0, 0)
    assert contents(url) == before
    changed, _ = cifar(tmp_path, num_train=60)
    after = contents(url)
    latest = "sets/cifar10-600b17c1/latest.json"
    assert {key: after[key] for key in before if key != latest} == {key: before[key] for key in before if key != latest}
    store = open_store(url)
    assert read_index(store, "cifar10-600b17c1", first.index.version) == first.index
    assert read_index(store, "cifar10-600b17c1", None) == changed.index
    # Another version of the same files: the files themselves are checked when they are loaded.
    assert read_index(store, "cifar10-600b17c1", "0" * 16) == changed.index


def test_a_push_that_ends_early_leaves_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, url = write_cifar10(tmp_path / "data"), tmp_path / "url"
    written = Store.put

    def fails(store: Store, key: str, data: bytes, *, durable: bool = False) -> str:
        if len(contents(url)) == 3:
            raise StoreError("the line is cut")
        return written(store, key, data, durable=durable)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", fails)
        with pytest.raises(
            StoreError, match=r"data set cifar10: the line is cut; check the URL, .*, and run the same command again"
        ):
            pushed(parse_dataset("cifar10"), root, url)
    assert len(contents(url)) == 3
    assert not (url / "sets").exists()
    report = pushed(parse_dataset("cifar10"), root, url)
    assert report.num_sent == len(report.index.shards) - 3


def test_the_same_files_make_the_same_shards(tmp_path: Path) -> None:
    one, other = (write_cifar10(tmp_path / name) for name in ("one", "other"))
    os.utime(other / "cifar-10-batches-py" / "batches.meta", (0, 0))
    reports = [pushed(parse_dataset("cifar10"), root, tmp_path / "url", shard_bytes=2**16) for root in (one, other)]
    assert reports[0].index == reports[1].index
    assert reports[1].num_sent == 0


def test_no_shard_holds_more_than_it_may(tmp_path: Path) -> None:
    sizes = {"a": 0, "b": 900, "c": 10_500, "d": 4096, "e": 10, "f": 3000}
    files = {name: tmp_path / name for name in sizes}
    for name, size in sizes.items():
        files[name].write_bytes(os.urandom(size))
    parts = list(parts_of(files, 4096))
    assert [[name for name, _ in part.files] for part in parts] == [
        *[["c"]] * 3,
        ["a", "b"],
        ["d"],
        ["e", "f"],
    ]
    assert [(part.offset, part.length) for part in parts[:3]] == [(0, 4096), (4096, 4096), (8192, 2308)]
    assert b"".join(map(packed, parts[:3])) == files["c"].read_bytes()


def test_a_node_fetches_once_and_in_its_own_order(tmp_path: Path) -> None:
    report, url = cifar(tmp_path)
    folder = fetched(report, url, tmp_path / "node")
    shutil.rmtree(url / "shards")
    assert fetched(report, url, tmp_path / "node") == folder
    with pytest.raises(
        CorruptObjectError, match=r"shards/[0-9a-f]{64} is missing, and `kd-ray data push` sends it again"
    ):
        fetched(report, url, tmp_path / "other")
    orders = [order(report.index.shards, node=node) for node in ("a /data", "b /data", "b /data")]
    assert orders[0] != orders[1] == orders[2]
    assert set(orders[0]) == set(orders[1]) == set(report.index.shards)


def test_a_fetch_that_ended_early_keeps_its_finished_shards(tmp_path: Path) -> None:
    report, url = cifar(tmp_path)
    lost = order(report.index.shards, node="x")[3]
    kept = (url / "shards" / lost.sha256).read_bytes()
    (url / "shards" / lost.sha256).unlink()
    with pytest.raises(CorruptObjectError, match="is missing"):
        fetched(report, url, tmp_path / "node")
    (partial,) = (tmp_path / "node" / "fetched").glob(".*.partial")
    finished = {path.name[:64] for path in (partial / "done").iterdir()}
    for sha in finished:
        (url / "shards" / sha).unlink()
    (url / "shards" / lost.sha256).write_bytes(kept)
    folder = fetched(report, url, tmp_path / "node")
    assert contents(folder / "cifar-10-batches-py") == contents(tmp_path / "data-40" / "cifar-10-batches-py")
    assert not partial.exists()


def test_what_was_written_before_the_machine_went_down_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, url = cifar(tmp_path)
    (url / "shards" / report.index.shards[0].sha256).rename(tmp_path / "shard")
    with pytest.raises(CorruptObjectError):
        fetched(report, url, tmp_path / "node")
    (partial,) = (tmp_path / "node" / "fetched").glob(".*.partial")
    for path in (partial / "files").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    (tmp_path / "shard").rename(url / "shards" / report.index.shards[0].sha256)
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(fetched_sets, "_BOOT", tmp_path / "boot")
    folder = fetched(report, url, tmp_path / "node")
    assert contents(folder / "cifar-10-batches-py") == contents(tmp_path / "data-40" / "cifar-10-batches-py")


@pytest.mark.parametrize("damage", [b"", b"0" * 100, None])
def test_a_damaged_shard_is_refused_with_what_to_do(damage: bytes | None, tmp_path: Path) -> None:
    report, url = cifar(tmp_path)
    path = url / "shards" / report.index.shards[2].sha256
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage is None else damage)
    with pytest.raises(CorruptObjectError) as refused:
        fetched(report, url, tmp_path / "node")
    assert str(refused.value) == (
        f"placement.data_url: data set cifar10: {url}/shards/{path.name} is damaged: its SHA-256 is not that of the index; delete it, "
        "and `kd-ray data push` sends it again"
    )
    path.unlink()
    assert cifar(tmp_path)[0].num_sent == 1
    assert fetched(report, url, tmp_path / "node").is_dir()


def test_room_is_made_of_what_was_not_used_for_longest_and_is_not_in_use(tmp_path: Path) -> None:
    reports = {n: cifar(tmp_path, num_train=n)[0] for n in (40, 60, 80, 100)}
    url, node = tmp_path / "url", tmp_path / "node"
    (node / "mine").mkdir(parents=True)
    (node / "mine" / "file").write_text("put there by the user")
    of = {n: fetched(reports[n], url, node) for n in (40, 60, 80)}
    for age, n in enumerate((60, 40, 80)):  # 60 was used before 40
        os.utime(of[n].with_name(f"{of[n].name}.use"), (1000 + age, 1000 + age))
    (of[60] / "prepared").mkdir()
    (of[60] / "prepared" / "images.npy").write_bytes(b"0" * 2**20)
    for n in (60, 40):
        let_go(of[n])
    size = sum(fetched_sets._size(of[n]) for n in (40, 60, 80)) / 1e9
    # All but the prepared images fit, so one folder is enough.
    newest = fetched(reports[100], url, node, data_cache_gb=size - 2**19 / 1e9)
    assert [of[n].is_dir() for n in (40, 60, 80)] == [True, False, True]
    assert (node / "mine" / "file").read_text() == "put there by the user"
    # It comes back, and now 40 goes, although 80 was not used for longer: 80 is in use.
    os.utime(of[80].with_name(f"{of[80].name}.use"), (500, 500))
    in_use = sum(fetched_sets._size(it) for it in (of[80], newest))
    needed = reports[60].index.size_bytes + 7 * 4096
    again = fetched(reports[60], url, node, data_cache_gb=(in_use + needed) / 1e9)
    assert again == of[60]
    assert [of[n].is_dir() for n in (40, 60, 80)] == [False, True, True]
    with pytest.raises(CacheError, match="other sets that are in use take"):
        fetched(reports[40], url, node, data_cache_gb=1e-4)
    assert of[80].is_dir()


def test_a_full_disk_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, url = cifar(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kd_ray.cluster.shared_data.fetch_data.unpack_files", full)
    monkeypatch.setattr("kd_ray.cluster.shared_data.fetch_data.unpack_piece", full)
    with pytest.raises(
        CacheError, match=r"cannot be made: \[Errno 28\] No space left on device; make room, or name another"
    ):
        fetched(report, url, tmp_path / "node")
