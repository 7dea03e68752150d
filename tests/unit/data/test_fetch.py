"""Files from a server on this machine: interrupted transfers are continued, and only the right checksum counts."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from kd_ray.data import adult, cifar100, fetch, svhn
from kd_ray.data.cifar_files import fetch_archive
from kd_ray.data.families import family_of
from kd_ray.data.family import Loading
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import (
    AdultDataset,
    CelebaDataset,
    Cifar100Dataset,
    Dataset,
    ImagenetDataset,
    SvhnDataset,
    TinyImagenetDataset,
)
from tests.datasets import write_cifar100, write_svhn

CONTENT = bytes(range(256)) * 4000


class _Handler(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}
    cut_at: ClassVar[int | None] = None
    knows_ranges: ClassVar[bool] = True
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers.get('Range', 'all')}")
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        begin = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        start = int(begin) if self.knows_ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.cut_at])

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    _Handler.files, _Handler.cut_at, _Handler.knows_ranges = {"/file": CONTENT}, None, True
    _Handler.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_download_goes_on_where_it_stopped(server: str, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = tmp_path / "deep" / "file"

    def get() -> None:
        fetch.download(f"{server}/file", path, md5=_md5(CONTENT), on_bytes=lambda *args: seen.append(args))

    _Handler.cut_at = 300_000
    with pytest.raises(DataError, match=r"/file: cannot be fetched .*the same command continues the transfer"):
        get()
    assert not path.exists()
    assert (path.parent / "file.part").stat().st_size == 300_000
    _Handler.cut_at = None
    get()
    assert path.read_bytes() == CONTENT
    assert _Handler.asked == ["/file all", "/file bytes=300000-"]
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_download_begins_again_where_the_server_knows_no_ranges(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    _Handler.knows_ranges = False
    fetch.download(f"{server}/file", tmp_path / "file", md5=_md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_download_takes_a_part_that_is_whole(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch.download(f"{server}/file", tmp_path / "file", md5=_md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_download_keeps_nothing_of_another_checksum(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"its MD5 is {_md5(CONTENT)}, published is 00; nothing is kept"):
        fetch.download(f"{server}/file", tmp_path / "file", md5="00")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["{server}/none", "http://127.0.0.1:1/file", "no address"])
def test_download_says_what_it_could_not_reach(server: str, tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="cannot be fetched to"):
        fetch.download(url.format(server=server), tmp_path / "file", md5="00")


def _archive(root: Path, *names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            tar.add(root / "cifar-100-python" / name, f"cifar-100-python/{name}")
        # What an archive should not hold, and nobody asks for.
        tar.add(root / "cifar-100-python" / "meta", "../outside")
    return buffer.getvalue()


def test_cifar100_is_fetched_unpacked_and_read(server: str, tmp_path: Path) -> None:
    archive = _archive(write_cifar100(tmp_path / "source"), "train", "test", "meta")
    _Handler.files["/c.tar.gz"] = archive
    published = SimpleNamespace(url=f"{server}/c.tar.gz", filename="c.tar.gz", tgz_md5=_md5(archive))
    root = tmp_path / "a" / "b"

    def get() -> None:
        fetch_archive("CIFAR100", root, cifar100.FOLDER, cifar100.FILES, None, published=published)

    get()
    dataset = Cifar100Dataset(name="cifar100", version=cifar100.fingerprint(root))
    assert len(cifar100.load(dataset, Loading(root=root)).train) == 200
    assert {path.name for path in root.rglob("*") if path.is_file()} == {"c.tar.gz", "train", "test", "meta"}
    assert not (tmp_path / "a" / "outside").exists()
    get()
    assert len(_Handler.asked) == 1


def test_an_archive_without_a_file_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "c.tar.gz"
    archive.write_bytes(_archive(write_cifar100(tmp_path / "source"), "train", "meta"))
    with pytest.raises(DataError, match=r"c\.tar\.gz is damaged or not the published one: .*cifar-100-python/test"):
        fetch.unpack(archive, tmp_path / "cifar-100-python", ("train", "test", "meta"))
    archive.write_bytes(archive.read_bytes()[:500])
    with pytest.raises(DataError, match=r"c\.tar\.gz is damaged"):
        fetch.unpack(archive, tmp_path / "cifar-100-python", ("train",))


def test_svhn_fetches_extra_only_when_asked(server: str, tmp_path: Path) -> None:
    source = write_svhn(tmp_path / "source", extra=5) / "svhn"
    split_list = {}
    for split in ("train", "test", "extra"):
        content = (source / f"{split}_32x32.mat").read_bytes()
        _Handler.files[f"/{split}"] = content
        split_list[split] = [f"{server}/{split}", f"{split}_32x32.mat", _md5(content)]
    svhn.fetch(SvhnDataset(name="svhn"), tmp_path, None, published=split_list)
    assert _Handler.asked == ["/train all", "/test all"]
    svhn.fetch(SvhnDataset(name="svhn", extra=True), tmp_path, None, published=split_list)
    assert _Handler.asked[2:] == ["/extra all"]
    dataset = SvhnDataset(name="svhn", extra=True, version=svhn.fingerprint(tmp_path, extra=True))
    assert len(svhn.load(dataset, Loading(root=tmp_path)).train) == 45


def test_adult_is_fetched_and_another_file_is_not_taken(server: str, tmp_path: Path, shared_data: Path) -> None:
    """The real files, from a server of our own."""
    for name in ("adult.data", "adult.test"):
        _Handler.files[f"/{name}"] = (shared_data / "adult" / name).read_bytes()
    seen: list[tuple[str, int, int]] = []
    adult.fetch(tmp_path, lambda *args: seen.append(args), url=f"{server}/")
    assert seen[-1] == ("adult.test", 2_003_153, 2_003_153)
    assert (tmp_path / "adult" / "adult.data").read_bytes() == _Handler.files["/adult.data"]
    adult.fetch(tmp_path, None, url=f"{server}/")
    assert _Handler.asked == ["/adult.data all", "/adult.test all"]
    (tmp_path / "adult" / "adult.test").unlink()
    _Handler.files["/adult.test"] = b"something else"
    with pytest.raises(DataError, match=r"adult\.test: its MD5 is .*, published is 35238206dfdf7f1fe215bbb874adecdc"):
        adult.fetch(tmp_path, None, url=f"{server}/")
    advice = adult.FAMILY.advice(AdultDataset(name="adult"), tmp_path)
    assert advice is not None
    assert f"{tmp_path}/adult/adult.data\n  {tmp_path}/adult/adult.test" in advice


def test_sets_that_may_not_be_fetched_say_what_to_put_where(tmp_path: Path) -> None:
    def advice(dataset: Dataset) -> str | None:
        return family_of(dataset).advice(dataset, tmp_path)

    celeba = advice(CelebaDataset(name="celeba"))
    tiny = advice(TinyImagenetDataset(name="tiny_imagenet"))
    large = advice(ImagenetDataset(name="imagenet", folder="ilsvrc"))
    assert celeba is not None
    assert tiny is not None
    assert large is not None
    assert f"{tmp_path}/celeba/list_attr_celeba.txt" in celeba
    assert f"{tmp_path}/tiny-imagenet-200/val/val_annotations.txt" in tiny
    assert f"{tmp_path}/ilsvrc/val/<class>/<image>" in large
    assert advice(SvhnDataset(name="svhn")) is None
