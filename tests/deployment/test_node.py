"""The scripts that an image and an operator run, for real: certificates, and a head with token and TLS."""

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.processes import kill_session, wait_until

DOCKER = Path(__file__).resolve().parents[2] / "docker"
ADDRESS = "127.0.0.2"


def make_certificates(folder: Path, *names: str) -> Path:
    """Certificates for one node; its folder."""
    script = DOCKER / "tls" / "make-certificates.sh"
    subprocess.run([str(script), str(folder), *names], check=True, capture_output=True, text=True, timeout=60)
    return folder / names[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


def test_certificates_are_of_one_authority_for_the_names_given_and_keys_are_private(tmp_path: Path) -> None:
    first = make_certificates(tmp_path, "head", "10.0.0.7", "head.cluster.internal")
    second = make_certificates(tmp_path, "worker")
    assert (first / "ca.crt").read_bytes() == (second / "ca.crt").read_bytes() == (tmp_path / "ca.crt").read_bytes()
    for node in (first, second):
        command = ["openssl", "verify", "-CAfile", str(tmp_path / "ca.crt"), str(node / "node.crt")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        assert (node / "node.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0
    assert not (first / "ca.key").exists(), "the authority's key leaves the operator's machine"
    text = subprocess.run(
        ["openssl", "x509", "-in", str(first / "node.crt"), "-noout", "-ext", "subjectAltName,extendedKeyUsage"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    for name in ("DNS:head,", "IP Address:10.0.0.7", "DNS:head.cluster.internal", "IP Address:127.0.0.1"):
        assert name in text
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text


def test_secrets_are_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    command = [str(DOCKER / "make-secrets.sh"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    assert set(before) == {"ray_token", "store_key", "store_secret", "serve_token"}
    assert {len(secret) for secret in before.values()} == {64}
    assert len(set(before.values())) == 4
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_node_without_a_token_does_not_start(role: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    done = subprocess.run(
        [str(DOCKER / "node.sh"), role], env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.startswith("node: no token: set RAY_AUTH_TOKEN_PATH")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "KD_RAY_SERVE_TOKEN"])
def test_credentials_come_from_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("the-key\n")
    environment = {"PATH": os.environ["PATH"], f"{name}_FILE": str(tmp_path / "key")}
    command = [str(DOCKER / "node.sh"), "printenv", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "the-key\n"


@contextmanager
def node(role: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """`node.sh head` or `node.sh worker`, while it runs."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(DOCKER / "node.sh"), role],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "Ray runtime started" in log.read_text(), process, timeout_s=90)
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()}") from error
    finally:
        kill_session(process.pid)
        process.wait()


def handshake(port: int, authority: Path) -> str | None:
    """The version of TLS that the server at a port speaks, if its certificate is one of this authority."""
    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((ADDRESS, port), timeout=30) as plain, context.wrap_socket(plain) as tls:
        return tls.version()


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.alone
def test_a_head_speaks_tls_wants_its_token_and_says_that_it_is_healthy(tmp_path: Path) -> None:
    """As an image starts it. The path of Ray's files is short, because a Unix socket's has at most 107 characters."""
    certificates = make_certificates(tmp_path / "ours", ADDRESS)
    strangers = make_certificates(tmp_path / "theirs", ADDRESS)
    token = tmp_path / "token"
    token.write_text("ab" * 32)
    port, agent = free_port(), free_port()
    with TemporaryDirectory(prefix="kd", dir="/tmp") as folder:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USE_TLS": "1",
            "RAY_TLS_CA_CERT": str(certificates / "ca.crt"),
            "RAY_TLS_SERVER_CERT": str(certificates / "node.crt"),
            "RAY_TLS_SERVER_KEY": str(certificates / "node.key"),
            "HEAD_ADDRESS": f"{ADDRESS}:{port}",
            "NODE_IP": ADDRESS,
            "DASHBOARD_HOST": ADDRESS,
            "METRICS_PORT": str(free_port()),
            "AGENT_PORT": str(agent),
            "NODE_OPTIONS": f"--temp-dir={folder} --object-store-memory=80000000 --dashboard-port={free_port()}",
        }
        script = str(DOCKER / "node.sh")
        unhealthy = subprocess.run([script, "health"], env=environment, capture_output=True, check=False, timeout=60)
        assert unhealthy.returncode != 0
        with node("head", environment, tmp_path / "head.log"):
            healthy = subprocess.run(
                [script, "health"], env=environment, capture_output=True, text=True, check=False, timeout=60
            )
            assert healthy.returncode == 0, healthy.stderr
            assert handshake(port, certificates / "ca.crt") == "TLSv1.3"
            with pytest.raises(ssl.SSLCertVerificationError):
                handshake(port, strangers / "ca.crt")
            (tmp_path / "other").write_text("cd" * 32)
            check = (script, "ray", "health-check", "--address", f"{ADDRESS}:{port}", "--skip-version-check")
            right, wrong = (
                subprocess.Popen(
                    check, env=environment | {"RAY_AUTH_TOKEN_PATH": str(path)}, stderr=subprocess.PIPE, text=True
                )
                for path in (token, tmp_path / "other")
            )
            said = right.communicate(timeout=60)[1], wrong.communicate(timeout=60)[1]
            assert right.returncode == 0, said[0]
            assert wrong.returncode != 0
            assert "InvalidAuthToken" in said[1]


@contextmanager
def stand_ins(saved: Path) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """Ray's workers by name: one trains, and writes a file on SIGTERM as a pack does a checkpoint; the other is of another kind."""
    script = f'trap "echo saved > {saved}; exit 0" TERM; echo ready; while :; do read -t 1 <> <(:) || :; done'
    pack, idle = (
        subprocess.Popen(
            ["bash", "-c", 'exec -a "$0" bash -c "$1"', name, script],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for name in ("ray::PackTrainable.train", "ray::IDLE")
    )
    try:
        for process in (pack, idle):
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        yield pack, idle
    finally:
        for process in (pack, idle):
            kill_session(process.pid)
            process.communicate()


@pytest.mark.alone
def test_leave_lets_packs_end_before_the_node_does(tmp_path: Path) -> None:
    """Not beside other tests, whose workers it would tell to go."""
    with stand_ins(tmp_path / "pack") as (pack, idle):
        done = subprocess.run(
            [str(DOCKER / "node.sh"), "leave"], check=False, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "pack").read_text() == "saved\n"
        assert pack.wait(timeout=10) == 0
        assert idle.poll() is None


class Metadata(BaseHTTPRequestHandler):
    """What a cloud's metadata server says to a spot machine: trouble once, nothing new once, then the notice."""

    def do_PUT(self) -> None:
        """AWS hands out a token."""
        assert self.path == "/latest/api/token"
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60"
        self._say(200, b"the-token")

    def do_GET(self) -> None:
        """Both say whether the machine is taken back."""
        if self.path == "/latest/meta-data/spot/instance-action":
            assert self.headers["X-aws-ec2-metadata-token"] == "the-token"
            nothing, notice = (404, b""), (200, b'{"action": "terminate", "time": "2030-01-01T00:00:00Z"}')
        else:
            assert self.path == "/computeMetadata/v1/instance/preempted"
            assert self.headers["Metadata-Flavor"] == "Google"
            nothing, notice = (200, b"FALSE"), (200, b"TRUE")
        self.server.asked += 1  # type: ignore[attr-defined]  # see metadata_server
        self._say(*{1: (503, b""), 2: nothing}.get(self.server.asked, notice))  # type: ignore[attr-defined]

    def _say(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.mark.alone
@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_a_spot_machine_leaves_when_its_end_is_announced(provider: str, tmp_path: Path) -> None:
    """Guard: packs write checkpoints first, then Ray is stopped, so that no new one begins there."""
    ray = tmp_path / "bin" / "ray"
    ray.parent.mkdir()
    ray.write_text(f'#!/bin/sh\necho "ray $*, pack $(cat {tmp_path}/pack)"\n')
    ray.chmod(0o755)
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    server.asked = 0  # type: ignore[attr-defined]
    environment = {
        "PATH": f"{ray.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "METADATA_URL": f"http://127.0.0.1:{server.server_port}",
    }
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        with stand_ins(tmp_path / "pack") as (pack, idle):
            done = subprocess.run(
                [str(DOCKER / "node.sh"), "watch", provider],
                env=environment,
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1] == "ray stop, pack saved"
            assert (pack.wait(timeout=10), idle.poll()) == (0, None)
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    (line,) = done.stderr.splitlines()
    assert "does not say whether this machine is taken back: HTTP Error 503" in line
    assert server.asked == 3  # type: ignore[attr-defined]


def test_a_provider_that_is_not_known_cannot_be_watched() -> None:
    done = subprocess.run(
        [str(DOCKER / "node.sh"), "watch", "azure"], check=False, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (2, "node: watch azure: valid: aws, gcp\n")
