"""The job server of a Ray cluster, through Ray's own client. Every wait is limited, and every error is one line."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from kd_ray.cluster.jobs.entrypoint import differences, versions
from kd_ray.errors import InvalidInputError

_CONNECT_S = 5.0
_ANSWER_S = 10.0
_UPLOAD_S = 120.0
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Environment variables that Ray prefers to the address it is given."""


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """A sweep that was submitted to the cluster, as the job server reports it."""

    job_id: str
    """The job server's id of this submission."""
    name: str
    sweep: str
    store: str
    digest: str
    """See `Submission.digest`."""
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str
    """The server's message about how it ended."""
    exit_code: int | None
    """Exit code of the launch; None while it runs, and if it never started."""
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def is_over(self) -> bool:
        """Whether it has ended: succeeded, failed or stopped."""
        return JobStatus(self.status).is_terminal()


class JobIdTakenError(Exception):
    """A job with this id exists already: another user has just submitted the same sweep."""


class Jobs:
    """The sweeps among a cluster's jobs. Every method raises InvalidInputError when the cluster refuses or does not answer."""

    def __init__(self, address: str, *, answer_s: float = _ANSWER_S) -> None:
        """Connect to the job server at `address`; `answer_s` is the longest wait for an answer.

        Raises:
            InvalidInputError: no server answers in time, it is no Ray cluster, or the token is wrong.
        """
        self.address = _checked(address)
        token = _token()
        self._has_token = token is not None
        self._has_answered = False
        self._answer_s = answer_s
        with self._plainly():
            self._refuse_if_open()
            self._client = _connect(self.address, token)
        self._has_answered = True

    def check_versions(self) -> None:
        """Compare the versions of Ray and Python with the cluster's, before anything is sent. The job itself compares kd_ray's version.

        Raises:
            InvalidInputError: the versions differ.
        """
        with self._plainly():
            data = self._client.get("/api/v0/cluster_metadata")["data"]
            there = {"python": ".".join(data["pythonVersion"].split(".")[:2]), "ray": data["rayVersion"]}
        if wrong := differences(versions(), there):
            raise InvalidInputError(f"--address {self.address}: {'; '.join(wrong)}; use the same on both sides")

    def sweeps(self) -> list[SweepJob]:
        """The sweeps that were submitted since the head was started, newest first."""
        with self._plainly():
            jobs = [_sweep_job(details) for details in self._client.list_jobs()]
        found = [job for job in jobs if job is not None]
        return sorted(found, key=lambda job: job.started_at or datetime.max.replace(tzinfo=UTC), reverse=True)

    def get(self, job_id: str) -> SweepJob:
        """One sweep by its job id."""
        with self._plainly():
            job = _sweep_job(self._client.get_job_info(job_id))
        if job is None:
            raise InvalidInputError(f"--address {self.address}: the job {job_id} is not a sweep")
        return job

    def send(
        self, job_id: str, *, entrypoint: str, folder: Path, environment: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Submit a job that runs `entrypoint` in a copy of `folder`.

        Raises:
            JobIdTakenError: there is a job with this id.
        """
        with self._plainly():
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env={"working_dir": str(folder), "env_vars": dict(environment)},
                    metadata=dict(metadata),
                )
            except RuntimeError as error:
                if f"{job_id} already exists" in str(error):
                    raise JobIdTakenError(job_id) from error
                raise

    def log(self, job_id: str) -> str:
        """The output of the job so far; empty before it starts."""
        with self._plainly():
            return self._client.get_job_logs(job_id) or ""

    def stop(self, job_id: str) -> None:
        """Tell a job to end. It ends after it has written its checkpoints."""
        with self._plainly():
            self._client.stop_job(job_id)

    def _refuse_if_open(self) -> None:
        """Refuse a cluster that asks for no token: everyone who can reach it can run code on it."""
        answer = requests.get(f"{self.address}/api/version", timeout=(_CONNECT_S, self._answer_s))
        if answer.status_code == requests.codes.ok and self._has_token:
            answer.json()["ray_version"]  # KeyError: it is no Ray cluster
            raise InvalidInputError(
                f"--address {self.address}: the cluster asks for no token, so everyone who can reach it can run code on it; start it with "
                "RAY_AUTH_MODE=token, or set RAY_AUTH_MODE=disabled here too if this is intended"
            )

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Inside, errors of Ray and HTTP become InvalidInputError with a message of one line."""
        where = f"--address {self.address}"
        try:
            yield
        except AuthenticationError as error:
            is_wrong = self._has_token and "Invalid" in str(error)
            reason = "the token is not the cluster's" if is_wrong else "the cluster asks for a token"
            raise InvalidInputError(f"{where}: {reason}; {_TOKEN_HINT}") from error
        except requests.exceptions.SSLError as error:
            raise InvalidInputError(f"{where}: TLS fails: {_first_line(error)}") from error
        except (requests.exceptions.Timeout, requests.exceptions.ConnectionError, ConnectionError) as error:
            raise InvalidInputError(f"{where}: {_SILENT if self._has_answered else _ABSENT}") from error
        except (requests.exceptions.RequestException, json.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{where}: what answers there is no Ray job server ({type(error).__name__})"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise InvalidInputError(f"{where}: the job server refuses: {_last_line(error)}") from error


_ABSENT = "no Ray job server answers there; it is the head's dashboard, at port 8265 as a rule"
_SILENT = (
    "the Ray job server there has answered before, and does not answer this request. The head runs jobs through an agent of its own: "
    "if the agent's port is taken (52365, or what `ray start --dashboard-agent-listen-port` says), as by another Ray, there is none"
)
_TOKEN_HINT = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it"  # noqa: S105 (a hint, no token)


class _PatientClient(JobSubmissionClient):
    """Ray's client, with a limit on every wait (it has none of its own) and with the given token only.

    Without a token, Ray adds the one that it finds if tokens were on when this process used Ray for the first time.
    """

    def __init__(self, address: str, token: str | None) -> None:
        self._sends_token = token is not None
        super().__init__(address, headers={"Authorization": f"Bearer {token}"} if token else {})

    def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> requests.Response:
        if not self._sends_token:
            self._headers = {name: value for name, value in self._headers.items() if name.lower() != "authorization"}
        answer_s = _UPLOAD_S if method == "PUT" else _ANSWER_S
        response: requests.Response = super()._do_request(method, endpoint, timeout=(_CONNECT_S, answer_s), **kwargs)
        return response

    def get(self, endpoint: str) -> dict[str, Any]:
        """A JSON answer of the dashboard."""
        response = self._do_request("GET", endpoint)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


def _connect(address: str, token: str | None) -> _PatientClient:
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env"):
        logging.getLogger(name).setLevel(logging.ERROR)
    hidden = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        return _PatientClient(address, token)
    finally:
        os.environ.update(hidden)


def _checked(address: str) -> str:
    """`http://HOST:PORT`, from that or from `HOST:PORT`."""
    url = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in url:
        raise InvalidInputError(f"--address {address}: expected the head's dashboard, http://HOST:8265 or https://HOST")
    return url


def _token() -> str | None:
    """The cluster's token, from the places where Ray's own tools look for it; None when the user has turned tokens off.

    Raises:
        InvalidInputError: no token was found.
    """
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return None
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    try:
        token = token or path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token or not token.isprintable() or not token.isascii():
        raise InvalidInputError(f"no token for the cluster; {_TOKEN_HINT} (also looked at: {path})")
    return token


def _sweep_job(details: JobDetails) -> SweepJob | None:
    """None for a job that kd_ray did not submit."""
    metadata = details.metadata or {}
    if details.submission_id is None or "kd_ray_name" not in metadata:
        return None
    return SweepJob(
        job_id=details.submission_id,
        name=metadata["kd_ray_name"],
        sweep=metadata.get("kd_ray_sweep", ""),
        store=metadata.get("kd_ray_store", ""),
        digest=metadata.get("kd_ray_digest", ""),
        status=str(details.status.value),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started_at=_time(details.start_time),
        ended_at=_time(details.end_time),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _last_line(error: Exception) -> str:
    """The last line of a traceback that a server sends: the error message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1][:300] if lines else type(error).__name__
