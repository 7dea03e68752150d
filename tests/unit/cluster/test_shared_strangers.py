"""Data sets at a URL of a stranger: nothing is written outside the folder, and no more than there is room for."""

import io
import json
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from kd_ray.cluster.shared_data.data_index import MOST_SHARD_BYTES, Index, Shard, read_index
from kd_ray.cluster.shared_data.push_data import PushReport
from kd_ray.cluster.shared_data.shards import check_name, unpack_files
from kd_ray.errors import CacheError, CorruptObjectError
from kd_ray.results.store import Store
from tests.shared_data import fetched, let_go_of_all

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _nothing_stays_in_use() -> Iterator[None]:
    yield
    let_go_of_all()


def tar_of(*members: tarfile.TarInfo, data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return buffer.getvalue()


def member(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def longer_than_it_is() -> bytes:
    made = member("big")
    made.size = 2**40
    return made.tobuf() + b"\0" * 1024


HOSTILE = {
    "out of the folder": tar_of(member("ok"), member("../out")),
    "in the middle": tar_of(member("a/../../out")),
    "absolute": tar_of(member("/tmp/out")),
    "no name": tar_of(member(".")),
    "link": tar_of(member("a", kind=tarfile.SYMTYPE, link="/etc/passwd")),
    "hard link": tar_of(member("a"), member("b", kind=tarfile.LNKTYPE, link="../out")),
    "device": tar_of(member("null", kind=tarfile.CHRTYPE)),
    "fifo": tar_of(member("pipe", kind=tarfile.FIFOTYPE)),
    "sparse": tar_of(member("a", kind=tarfile.GNUTYPE_SPARSE)),
    "made by kd_ray": tar_of(member("loaded/0123/tensors.safetensors")),
    "long": longer_than_it_is(),
    "no tar": b"not a tar at all" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_tar_writes_nothing(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack_files(data, tmp_path / "inside")
    assert not list(tmp_path.iterdir())
    digest = sha256(data).hexdigest()
    (tmp_path / "url" / "shards").mkdir(parents=True)
    (tmp_path / "url" / "shards" / digest).write_bytes(data)
    index = Index(form=1, version=None, num_files=1, shards=(Shard(sha256=digest, size_bytes=len(data)),))
    report = PushReport(what="cifar10", index=index, num_sent=0, sent_bytes=0)
    with pytest.raises(CorruptObjectError, match=rf"cifar10: {tmp_path}/url/shards/{digest} was not unpacked: "):
        fetched(report, tmp_path / "url", tmp_path / "node")
    (partial,) = (tmp_path / "node" / "fetched").glob(".*.partial")
    assert not list((partial / "files").iterdir())


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "", ".", "a\0b", "pretrained/x", "fetched/a.use"])
def test_a_name_that_leaves_the_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a file of a data set"):
        check_name(name)


SHA = "0" * 64


@pytest.mark.parametrize(
    ("written", "what"),
    [
        (b"{", "EOF"),
        (b"[" * 10_000, "recursion limit"),
        ({"form": 2, "version": None, "num_files": 0, "shards": []}, "form"),
        ({"form": 1, "version": "../x", "num_files": 0, "shards": []}, "version"),
        ({"form": 1, "version": None, "num_files": -1, "shards": []}, "num_files"),
        ({"form": 1, "version": None, "num_files": 0, "shards": [{"sha256": "../x", "size_bytes": 1}]}, "sha256"),
        ({"form": 1, "version": None, "num_files": 0, "shards": [{"sha256": SHA, "size_bytes": 2**40}]}, "size_bytes"),
        (
            {
                "form": 1,
                "version": None,
                "num_files": 1,
                "shards": [{"sha256": SHA, "size_bytes": 9, "path": "a", "offset": 2**60}],
            },
            "a piece of 'a' begins at",
        ),
    ],
)
def test_a_hostile_index_is_refused(written: bytes | dict[str, object], what: str, store: Store) -> None:
    store.put("sets/x/latest.json", written if isinstance(written, bytes) else json.dumps(written).encode())
    with pytest.raises(CorruptObjectError, match=rf"'sets/x/latest.json' is no index of a data set: .*{what}"):
        read_index(store, "x", None)


def test_sets_that_need_more_than_there_is_are_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    shards = tuple(Shard(sha256=f"{n:064x}", size_bytes=MOST_SHARD_BYTES) for n in range(20_000))
    report = PushReport(
        what="huge", index=Index(form=1, version=None, num_files=1, shards=shards), num_sent=0, sent_bytes=0
    )
    with pytest.raises(
        CacheError, match=r"the data need 1.34e\+03 GB, .* of the 200 GB of placement.data_cache_gb, and the disk has"
    ):
        fetched(report, tmp_path / "url", tmp_path / "node")
    with pytest.raises(CacheError, match=r"raise the limit, make room, or name another placement\.data_root"):
        fetched(report, tmp_path / "url", tmp_path / "node", data_cache_gb=1e9)
    assert not list((tmp_path / "node" / "fetched").glob(".*.partial"))
