"""What is sent to a cluster, and how a submission that cannot be is refused."""

import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from pathlib import Path

import pytest
from ray.dashboard.modules import dashboard_sdk

from kd_ray.cluster.jobs import entrypoint
from kd_ray.cluster.jobs.client import Jobs
from kd_ray.cluster.jobs.modules import files_of
from kd_ray.cluster.jobs.submission import Submission, make_submission
from kd_ray.errors import InvalidInputError
from tests.fakes import make_sweep

pytestmark = pytest.mark.slow

STORE = "s3://lab/kd_ray"
DATA = "placement.data_root=/data"


def submission(
    *overrides: str, store: str = STORE, name: str | None = None, modules: tuple[Path, ...] = ()
) -> Submission:
    return make_submission(make_sweep(overrides=(DATA, *overrides)), store, name=name, modules=modules)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


PROJECT = {
    "pyproject.toml": '[project]\nname = "my-losses"\nversion = "1.2"\n'
    '[project.entry-points."kd_ray.objectives"]\ngrouped = "my_losses.grouped:loss"\n',
    "my_losses/__init__.py": "",
    "my_losses/grouped.py": "def loss(): ...\n",
    "my_losses/__pycache__/grouped.cpython-311.pyc": "compiled",
    "tests/__init__.py": "",
    ".git/config": "private",
}


# --- what is sent ---------------------------------------------------------------------------------------------------------------------


def test_the_same_submission_has_the_same_digest_and_another_has_another(tmp_path: Path) -> None:
    module = write(tmp_path, {"helper.py": "A = 1\n"}) / "helper.py"
    first = submission()
    assert (first.name, first.sweep, first.store, first.num_trials) == ("demo", "demo", STORE, 8)
    assert submission().digest == first.digest
    others = [
        submission("grid.seed=[0]"),
        submission("placement.pack_size=3"),
        submission(store="s3://lab/other"),
        submission(name="another"),
        submission(modules=(module,)),
    ]
    write(tmp_path, {"helper.py": "A = 2\n"})
    others.append(submission(modules=(module,)))
    assert len({first.digest, *(other.digest for other in others)}) == 7


def test_a_submission_holds_what_was_asked_for_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the-token")
    sent = submission("grid.seed=[5]")
    assert b"seed: [5]" in sent.files["sweep.yaml"] or b"- 5" in sent.files["sweep.yaml"]
    order = json.loads(sent.files["kd_ray_job.json"])
    assert order["arguments"] == ["launch", "sweep.yaml", "--store", STORE, "--address", "auto"]
    assert set(order["expects"]) == {"python", "ray", "kd_ray"}
    everything = b"".join(sent.files.values()) + json.dumps(sent.metadata).encode()
    assert b"the-secret" not in everything
    assert b"the-token" not in everything


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("./kd_ray_store", "on the cluster this would be another folder"),
        ("ftp://lab/x", "unknown scheme; valid: s3://, gs://, az://"),
        ("s3://key:hidden@lab/x", "a URL must not hold credentials"),
        ("az://lab/x?sig=hidden", "a URL must not hold credentials"),
    ],
)
def test_a_store_that_the_cluster_cannot_use_is_refused(store: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as refused:
        submission(store=store)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("url", ["data", "s3://key:hidden@lab/x"])
def test_a_data_url_that_the_cluster_cannot_use_is_refused(url: str) -> None:
    with pytest.raises(
        InvalidInputError, match=r"^placement\.data_url (data: on the cluster|s3://…: a URL must not hold)"
    ) as refused:
        submission(f"placement.data_url={url}")
    assert "hidden" not in str(refused.value)


def test_a_relative_path_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        InvalidInputError, match=r"placement.data_root: 'data' is a relative path.*--set placement.data_root=/data"
    ):
        submission("placement.data_root=data")
    with pytest.raises(InvalidInputError, match=r"teacher.weights: 'w.th' is a relative path"):
        submission("teacher={model: resnet20, weights: w.th}")
    # Weights to start from are files of the cluster, too.
    for field in ("student.init", "teacher.init"):
        with pytest.raises(InvalidInputError, match=rf"{field}: 'w.th' is a relative path"):
            submission(f"{field}=w.th")


def test_weights_on_the_cluster_can_be_submitted() -> None:
    for model, weights in (("resnet20", "/data/w.th"), ("timm:resnet18", "pretrained"), ("resnet20", "hub:lab/shapes")):
        sent = submission(f"teacher={{model: '{model}', weights: '{weights}'}}")
        # One given teacher, which is only evaluated, 2 scratch and 4 distilled students.
        assert sent.num_trials == 7
        assert weights.encode() in sent.files["sweep.yaml"]


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="--name a b: expected"):
        submission(name="a b")


# --- modules --------------------------------------------------------------------------------------------------------------------------


def test_a_project_travels_with_the_entry_points_of_an_installation(tmp_path: Path) -> None:
    files = files_of([write(tmp_path / "project", PROJECT)])
    assert sorted(files) == [
        "my_losses-1.2.dist-info/METADATA",
        "my_losses-1.2.dist-info/entry_points.txt",
        "my_losses/__init__.py",
        "my_losses/grouped.py",
    ]
    folder = write(tmp_path / "job", {name: data.decode() for name, data in files.items()})
    (found,) = distributions(path=[str(folder)])
    (entry,) = found.entry_points
    assert (found.name, found.version) == ("my-losses", "1.2")
    assert (entry.group, entry.name, entry.value) == ("kd_ray.objectives", "grouped", "my_losses.grouped:loss")


def test_a_wheel_a_package_and_a_module_travel_as_they_are(tmp_path: Path) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x/__init__.py", "")
        archive.writestr("x-1.dist-info/METADATA", "Name: x\n")
    write(tmp_path, {"package/__init__.py": "", "package/part/deep.py": "", "single.py": ""})
    assert sorted(files_of([wheel, tmp_path / "package", tmp_path / "single.py"])) == [
        "package/__init__.py",
        "package/part/deep.py",
        "single.py",
        "x-1.dist-info/METADATA",
        "x/__init__.py",
    ]


def test_modules_that_cannot_travel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere: does not exist; expected a wheel"):
        files_of([tmp_path / "nowhere"])
    with pytest.raises(InvalidInputError, match=r"no project.version as a text; build a wheel"):
        files_of([write(tmp_path / "a", {"pyproject.toml": '[project]\nname = "x"\n'})])
    evil = tmp_path / "evil.whl"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("../sweep.yaml", "")
    with pytest.raises(InvalidInputError, match="outside the job's folder"):
        files_of([evil])
    one, two = write(tmp_path / "1", {"m.py": "1"}), write(tmp_path / "2", {"m.py": "2"})
    with pytest.raises(InvalidInputError, match=r"has another m.py"):
        files_of([one / "m.py", two / "m.py"])
    ours = write(tmp_path / "3", {"kd_ray/__init__.py": ""}) / "kd_ray"
    with pytest.raises(InvalidInputError, match="the name kd_ray is reserved for kd_ray"):
        submission(modules=(ours,))


# --- on the head ----------------------------------------------------------------------------------------------------------------------


def on_the_head(folder: Path, expects: Mapping[str, str | None]) -> subprocess.CompletedProcess[str]:
    (folder / entrypoint.ORDER).write_text(json.dumps({"expects": expects, "arguments": ["--version"]}))
    script = folder / entrypoint.SCRIPT
    script.write_bytes(Path(entrypoint.__file__).read_bytes())
    return subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, check=False)


def test_the_job_becomes_the_command_where_versions_agree(tmp_path: Path) -> None:
    done = on_the_head(tmp_path, entrypoint.versions())
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{entrypoint.READY}: python {sys.version_info[0]}.{sys.version_info[1]}, ray ")
    assert second.startswith("kd-ray, version ")


@pytest.mark.parametrize("name", ["python", "ray", "kd_ray"])
def test_the_job_refuses_other_versions(tmp_path: Path, name: str) -> None:
    done = on_the_head(tmp_path, {**entrypoint.versions(), name: "0.0.1"})
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert (
        line
        == f"{entrypoint.REFUSED}: the cluster has {name} {entrypoint.versions()[name]}, and this machine has 0.0.1"
    )


# --- who answers ----------------------------------------------------------------------------------------------------------------------

TOKEN = "the-token-of-the-test"


@contextmanager
def server(answers: Mapping[str, str], *, asks_for_token: bool = True, silent: bool = False) -> Iterator[str]:
    """A real HTTP server that stands where a head's dashboard is expected."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if silent:
                over.wait()
                return
            given = self.headers.get("Authorization")
            status = 200 if not asks_for_token or given == f"Bearer {TOKEN}" else 403 if given else 401
            body = answers.get(self.path, "<html>") if status == 200 else "Invalid" if given else "Missing"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            over.set()
            http.shutdown()
            thread.join()


def cluster_with(python: str, ray: str) -> dict[str, str]:
    return {
        "/api/version": json.dumps({"version": "4", "ray_version": ray}),
        "/api/v0/cluster_metadata": json.dumps({"data": {"pythonVersion": python, "rayVersion": ray}}),
        "/api/jobs/": "[]",
    }


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with a token, and no other settings of Ray."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    found = entrypoint.versions()
    return {"python": f"{found['python']}.0", "ray": str(found["ray"])}


def test_a_cluster_with_the_same_versions_is_taken(here: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: an address that was given is the one that is used, whatever Ray's variables say."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with server(cluster_with(**here)) as url:
        jobs = Jobs(url.removeprefix("http://"))
        jobs.check_versions()
        assert jobs.sweeps() == []
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


def test_other_versions_are_refused_before_anything_is_sent(here: Mapping[str, str]) -> None:
    with (
        server(cluster_with("3.9.1", here["ray"])) as url,
        pytest.raises(InvalidInputError, match=r"has python 3.9, and this"),
    ):
        Jobs(url).check_versions()
    with (
        server(cluster_with(here["python"], "2.99.0")) as url,
        pytest.raises(InvalidInputError, match=r"has ray 2.99.0, and"),
    ):
        Jobs(url).check_versions()


def test_without_a_token_ray_adds_none(here: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray adds the token that it finds if this process has used Ray with tokens before."""
    found = {"Authorization": f"Bearer {TOKEN}"}
    monkeypatch.setattr(dashboard_sdk, "get_auth_headers_if_auth_enabled", lambda _: found)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with (
        server(cluster_with(**here)) as url,
        pytest.raises(InvalidInputError, match="the cluster asks for a token"),
    ):
        Jobs(url)


def test_tokens(here: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = cluster_with(**here)
    with server(answers) as url:
        monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
        with pytest.raises(InvalidInputError, match="the token is not the cluster's; set RAY_AUTH_TOKEN"):
            Jobs(url)
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        with pytest.raises(InvalidInputError, match=r"no token for the cluster; set RAY_AUTH_TOKEN.*\.ray/auth_token"):
            Jobs(url)
        write(tmp_path, {".ray/auth_token": f"{TOKEN}\n"})
        Jobs(url)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        with pytest.raises(InvalidInputError, match="the cluster asks for a token"):
            Jobs(url)
    monkeypatch.delenv("RAY_AUTH_MODE")
    with server(answers, asks_for_token=False) as url:
        with pytest.raises(
            InvalidInputError, match="asks for no token, so everyone who can reach it can run code on it"
        ):
            Jobs(url)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        Jobs(url)


@pytest.mark.parametrize("answer", ["<html>", "{}", "[]"])
def test_something_else_that_answers_is_named(answer: str) -> None:
    with server({"/api/version": answer}) as url, pytest.raises(InvalidInputError, match="is no Ray job server"):
        Jobs(url)


def test_a_server_that_never_answers_is_left() -> None:
    began = time.monotonic()
    with server({}, silent=True) as url, pytest.raises(InvalidInputError, match="no Ray job server answers there"):
        Jobs(url, answer_s=0.2)
    assert time.monotonic() - began < 15


def test_a_server_that_falls_silent_is_not_taken_for_a_wrong_address(here: Mapping[str, str]) -> None:
    """Guard: `_SILENT`; where the agent of the head has no port, the address is right and a submission is not answered."""
    with server(cluster_with(**here)) as url:
        jobs = Jobs(url)
    with pytest.raises(InvalidInputError, match=r"has answered before, and does not answer this request.*52365"):
        jobs.sweeps()


@pytest.mark.parametrize("address", ["ray://head:10001", "http://", "http://a:b:c", "ftp://x", "http://user:pass@head"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError, match="expected the head's dashboard"):
        Jobs(address)
