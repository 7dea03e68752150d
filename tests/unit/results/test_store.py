"""The local store: the contract of all stores, and its messages."""

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from kd_ray import telemetry
from kd_ray.errors import InvalidInputError, StoreError
from kd_ray.results import store as keys
from kd_ray.results.objects import Patience
from kd_ray.results.store import Store, open_store
from tests.unit.results.store_contract import CONTRACT


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: str(promise.__name__))
def test_local_store_keeps_the_contract(promise: Callable[[Store], None], store: Store) -> None:
    promise(store)


def test_one_of_many_creators_wins(store: Store) -> None:
    with ThreadPoolExecutor(max_workers=8) as pool:
        for n in range(20):
            won = list(pool.map(lambda i, n=n: store.put_new(f"lease/{n}", str(i).encode()), range(8)))
            assert won.count(True) == 1
            assert store.get(f"lease/{n}") == str(won.index(True)).encode()


@pytest.mark.parametrize(
    ("verb", "act"),
    [
        ("write", lambda store: store.put("file/x", b"1")),
        ("create", lambda store: store.put_new("file/x", b"1")),
        ("read", lambda store: store.get("file/x")),
        ("look up", lambda store: store.exists("file/x")),
        ("delete", lambda store: store.delete("file/x")),
    ],
)
def test_store_that_cannot_names_store_key_and_reason(store: Store, verb: str, act: Callable[[Store], object]) -> None:
    store.put("file", b"1")
    expected = re.escape(f"store {store.url}: cannot {verb} 'file/x': ") + ".*Not a directory"
    with pytest.raises(StoreError, match=expected) as caught:
        act(store)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_folder_is_named(store: Store) -> None:
    root = Path(store.url)
    root.chmod(0o555)
    try:
        with pytest.raises(StoreError, match=r"cannot write 'a': .*Permission denied"):
            store.put("a", b"1")
    finally:
        root.chmod(0o755)


def test_a_folder_that_may_not_be_listed_is_not_empty(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the store of somebody else was said to have no sweeps yet."""
    store.put("a", b"1")

    def denied(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(StoreError, match=re.escape(f"store {store.url}: cannot list '': ") + ".*Permission denied"):
        list(store.entries(""))


def test_file_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    for must_exist in (False, True):
        with pytest.raises(
            InvalidInputError, match=re.escape(f"store {path}: it is a file; a store is a folder") + "$"
        ):
            open_store(path, must_exist=must_exist)


def test_folder_that_cannot_be_made_is_named_by_the_first_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store(tmp_path / "file" / "a")
    assert store.get("x") is None
    with pytest.raises(StoreError, match=re.escape(f"store {store.url}: cannot write 'x': ") + ".*Not a directory"):
        store.put("x", b"1")
    with pytest.raises(StoreError, match=re.escape(f"store {store.url}: cannot create 'x': ") + ".*Not a directory"):
        store.put_new("x", b"1")


def test_empty_path_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"^store '': the path is empty; give --store PATH or set KD_RAY_STORE$"
    ):
        open_store("")


def test_missing_folder_is_refused_where_it_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "none"
    expected = f"store {path}: there is no such folder (a launch makes it when its data are ready); give --store PATH or set KD_RAY_STORE"
    with pytest.raises(InvalidInputError, match=re.escape(expected) + "$"):
        open_store(path, must_exist=True)
    assert not path.exists()


def test_missing_folder_reads_as_empty_and_is_made_by_the_first_write(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    store = open_store(root)
    assert store.local_root == root
    assert repr(store) == f"Store('{root}')"
    assert store.get("x") is None
    assert not store.exists("x")
    store.delete("x")
    assert list(store.entries("")) == []
    assert not root.parent.exists()
    assert store.put_new("x", b"1")
    assert (root / "x").read_bytes() == b"1"
    assert store.exists("x")


def test_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("here").url == str(tmp_path / "here")


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///tmp/x", "http://host/x", "S4://x"])
def test_unknown_scheme_is_refused_with_the_valid_ones(url: str) -> None:
    scheme = url.split(":", maxsplit=1)[0].lower()
    expected = f"store {url}: unknown scheme '{scheme}'; valid: a local path, s3://, gs://, az://"
    with pytest.raises(InvalidInputError, match=re.escape(expected) + "$"):
        open_store(url)


@pytest.mark.parametrize("text", ["s3//bucket/x", "s3:/bucket/x", "s3:bucket/x", "S3:bucket/x"])
def test_a_misspelt_url_is_no_local_folder(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"store {text}: it is no URL; did you mean s3://bucket/x? A local folder of this name: ./{text}"
    with pytest.raises(InvalidInputError, match=re.escape(expected) + "$"):
        open_store(text)
    assert open_store(f"./{text}").local_root is not None
    assert open_store("s3/bucket").local_root == tmp_path / "s3" / "bucket"


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("s3://bucket/x", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("gs://bucket/x", "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_missing_credentials_are_named(url: str, variable: str) -> None:
    """Guard: `_translated`; the client tells of the metadata service alone, which it asks as its last resort."""

    class WithoutCredentials:
        def head(self, key: str) -> None:
            raise GenericError("Generic error: Error performing PUT http://169.254.169.254/latest/api/token: timed out")

    store = Store(url, WithoutCredentials())  # type: ignore[arg-type]  # all that a look-up asks of a client
    expected = f"store {url}: cannot look up 'a': there are no credentials: set {variable}; "
    with pytest.raises(StoreError, match=f"^{re.escape(expected)}"):
        store.head("a")


def test_an_azure_store_without_an_account_names_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    expected = (
        "store az://c/x: .*Account.*; AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY name the account; docs"
    )
    with pytest.raises(InvalidInputError, match=expected):
        open_store("az://c/x")


def test_object_store_has_no_local_root() -> None:
    assert open_store("s3://bucket/prefix").local_root is None


def test_keys_are_those_of_the_layout() -> None:
    trial = "0123456789abcdef"
    assert [
        keys.record_key(trial),
        keys.error_key(trial),
        keys.lease_key(trial, 7),
        keys.checkpoint_key(trial, 7, 1234, "f" * 64),
        keys.weights_key(trial, 7),
        keys.pretrained_key("ab" * 32),
        keys.samples_key(trial),
        keys.manifest_key("demo", 2),
        keys.sweep_key("demo"),
        keys.part_key("trials", "demo", 3),
    ] == [
        "trials/0123456789abcdef/record.parquet",
        "trials/0123456789abcdef/error.json",
        "trials/0123456789abcdef/lease/000007.json",
        "trials/0123456789abcdef/checkpoint/000007-000001234-ffffffffffffffff.safetensors",
        "trials/0123456789abcdef/weights-000007.safetensors",
        "weights/" + "ab" * 32,
        "datasets/0123456789abcdef/samples.parquet",
        "sweeps/demo/manifest/000002.json",
        "sweeps/demo/sweep.yaml",
        "tables/trials/demo/part-00003.parquet",
    ]


class ShakyListing:
    """A client of 2,500 objects whose every second page fails at first."""

    def __init__(self, *, continues: bool = True, is_ordered: bool = True) -> None:
        """A server that does not continue where it is told to begins at the front."""
        self.names = [f"trials/{n:05d}" for n in range(2500)]
        self.asked: list[str | None] = []
        self._continues = continues
        self._is_ordered = is_ordered
        self._num_given = 0

    def list(self, prefix: str, *, offset: str | None, chunk_size: int) -> Iterator[list[dict[str, object]]]:
        self.asked.append(offset)
        names = [name for name in self.names if not self._continues or offset is None or name > offset]
        if not self._is_ordered:
            names.reverse()
        for first in range(0, len(names), chunk_size):
            part = names[first : first + chunk_size]
            if first and (offset is None or part[0] > offset) and first > self._num_given:
                self._num_given = first
                raise GenericError("Generic S3 error: server said status code: 503")
            yield [{"path": name, "size": 1, "last_modified": datetime.now(UTC), "e_tag": "x"} for name in part]


@pytest.mark.parametrize("continues", [True, False])
def test_a_listing_that_fails_goes_on_behind_its_last_page(continues: bool) -> None:
    """Guard: `_Pages`; nothing is listed twice, and nothing is left out, by a server that ignores where to continue, too."""
    client = ShakyListing(continues=continues)
    store = Store("s3://shaky", client, patience=Patience(first_wait_s=0.001))  # type: ignore[arg-type]  # all that a listing asks of a client
    assert [item.key for item in store.entries("trials/")] == client.names
    assert client.asked == [None, "trials/00999", "trials/01999"][: len(client.asked)]
    assert len(client.asked) > 1


def test_a_listing_in_another_order_is_not_continued() -> None:
    """Guard: `_Pages`; behind the last key there is nothing, and most of the objects would be left out."""
    client = ShakyListing(is_ordered=False)
    store = Store("s3://shaky", client, patience=Patience(first_wait_s=0.001))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"^store s3://shaky: cannot list 'trials/': the listing broke off, and this"):
        list(store.entries("trials/"))
    assert client.asked == [None]


def test_every_kind_of_request_is_timed_on_a_local_store(store: Store) -> None:
    """Guard: a local store is listed without the client that times the others."""
    verbs: list[str] = []

    class Kept:
        """A sink that keeps the verbs."""

        def record(self, metric: telemetry.Measurement, value: float, tags: Mapping[str, str]) -> None:
            if metric is telemetry.STORE_SECONDS:
                verbs.append(tags["verb"])

    telemetry.measure_into(Kept())
    try:
        store.put_new("sweeps/demo/sweep.yaml", b"1")
        store.put("sweeps/demo/sweep.yaml", b"2")
        store.get("sweeps/demo/sweep.yaml")
        assert len(list(store.entries("sweeps"))) == 1
        store.delete("sweeps/demo/sweep.yaml")
    finally:
        telemetry.measure_into(None)
    assert set(verbs) >= {"create", "write", "read", "list", "delete"}
