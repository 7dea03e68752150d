"""Data sets in a repository of the Hugging Face hub: the hub's own client, and a server that answers as the hub does."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from kd_ray.cluster.shared_data.data_index import read_index
from kd_ray.cluster.shared_data.fetch_data import FoundSet
from kd_ray.cluster.shared_data.fetched_sets import on_this_node
from kd_ray.cluster.shared_data.find_sets import find_sets
from kd_ray.cluster.shared_data.places import open_place, open_writable_place
from kd_ray.errors import CorruptObjectError, DataError, StoreError
from kd_ray.results.store import open_store
from kd_ray.sweep.placement import Placement
from tests.fakes import make_sweep
from tests.shared_data import cifar, contents, let_go_of_all

pytestmark = pytest.mark.slow

REPOSITORY, REVISION, TOKEN = "lab/kd-data", "v1", "hf_of_a_test"
COMMIT = "0" * 40


@dataclass
class Hub:
    """A server with one dataset repository, whose files lie below a folder of this machine."""

    folder: Path
    is_private: bool = False
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, token: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content, as the hub resolves a file."""
        self.asked.append(path)
        where, _, name = path.partition(f"/resolve/{REVISION}/")
        if where != f"/datasets/{REPOSITORY}" or (self.is_private and token != f"Bearer {TOKEN}"):
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        file = self.folder / unquote(name)
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        data = file.read_bytes()
        return 200, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, data


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(folder=tmp_path / "repository")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_content=False)

        def do_GET(self) -> None:
            self.answer(with_content=True)

        def answer(self, *, with_content: bool) -> None:
            status, headers, data = hub.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield hub
    let_go_of_all()
    server.shutdown()
    server.server_close()
    thread.join()


URL = f"hf://datasets/{REPOSITORY}@{REVISION}/sets/here"


def test_a_set_that_was_sent_to_the_hub_comes_back_the_same(hub: Hub, tmp_path: Path) -> None:
    report, folder = cifar(tmp_path)
    (hub.folder / "sets").mkdir(parents=True)
    folder.rename(hub.folder / "sets" / "here")
    index = read_index(open_place(URL), "cifar10-600b17c1", report.index.version)
    assert index == report.index
    found = FoundSet(url=URL, what=report.what, index=index)
    fetched = Path(on_this_node(Placement(data_root=str(tmp_path / "node")), [found]).data_root)
    assert contents(fetched) == contents(tmp_path / "data-40")
    num_asked = len(hub.asked)
    on_this_node(Placement(data_root=str(tmp_path / "node")), [found])
    assert len(hub.asked) == num_asked


def test_a_shard_that_is_not_that_of_the_index_is_named(hub: Hub, tmp_path: Path) -> None:
    report, folder = cifar(tmp_path)
    (hub.folder / "sets").mkdir(parents=True)
    folder.rename(hub.folder / "sets" / "here")
    shard = report.index.shards[0]
    (hub.folder / "sets" / "here" / "shards" / shard.sha256).write_bytes(bytes(shard.size_bytes))
    found = FoundSet(url=URL, what=report.what, index=report.index)
    with pytest.raises(CorruptObjectError, match=rf"{shard.sha256} is damaged"):
        on_this_node(Placement(data_root=str(tmp_path / "node")), [found])


def test_what_is_not_there_too_large_or_private_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.folder.mkdir()
    (hub.folder / "some").write_bytes(b"content")
    place = open_place(f"hf://datasets/{REPOSITORY}@{REVISION}")
    assert place.get("some") == b"content"
    assert place.get("some", most_bytes=7) == b"content"
    assert place.get("other") is None
    assert place.get("other", most_bytes=7) is None
    with pytest.raises(CorruptObjectError, match="'some' has 7 bytes; at most 6 are read"):
        place.get("some", most_bytes=6)
    hub.is_private = True
    with pytest.raises(StoreError, match=r"lab/kd-data@v1: .*a private repository needs HF_TOKEN"):
        place.get("some")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert place.get("some") == b"content"


def test_a_hub_that_does_not_answer_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    # Between its five tries the client sleeps for 23 seconds.
    monkeypatch.setattr("time.sleep", lambda _: None)
    for most_bytes in (None, 7):
        with pytest.raises(StoreError, match=f"hf://datasets/{REPOSITORY}: .*connection"):
            open_place(f"hf://datasets/{REPOSITORY}").get("some", most_bytes=most_bytes)


def test_a_sweep_whose_set_is_not_there_says_how_to_send_it(hub: Hub) -> None:
    hub.folder.mkdir()
    overrides = ["dataset={name: cifar10}", f"placement.data_url={URL}", "sensitive_features=[]", "intersections=[]"]
    with pytest.raises(
        DataError, match=r"does not have it; `kd-ray data push demo.yaml FOLDER` and then `hf upload-large-folder"
    ):
        find_sets(make_sweep(overrides=overrides))


@pytest.mark.parametrize(
    "url", ["hf://", "hf://lab", "hf://datasets/lab", "hf://datasets/lab/", "hf://datasets/lab/a b", "hf://lab/model"]
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(DataError, match=r"must be hf://datasets/OWNER/NAME"):
        open_place(url)


def test_nothing_is_pushed_to_the_hub() -> None:
    with pytest.raises(DataError, match=r"is only read here; `kd-ray data push SWEEP.yaml FOLDER` and then"):
        open_writable_place(URL)


def test_other_urls_are_stores(tmp_path: Path) -> None:
    open_store(tmp_path / "folder").put("some", b"content")
    assert open_place(str(tmp_path / "folder")).get("some") == b"content"
    with pytest.raises(DataError, match=r"placement.data_url: .*ftp"):
        open_place("ftp://lab/data")
