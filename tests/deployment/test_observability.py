"""What a running sweep says about itself, read as a monitoring system reads it: over HTTP from Ray, and line by line from stderr."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kd_ray import telemetry
from kd_ray.cluster.launch import launch
from kd_ray.results.store import Store
from tests.sweeps import tiny_sweep, write_tiny_sweep

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "docker" / "grafana" / "kd_ray.json"

SHORT = ("grid.seed=[0]", "grid.temperature=[4]", "training.epochs=1", "training.schedule={name: constant}")
"""A teacher, a scratch and a distilled student."""

# The display is left before the cluster is: what it reads then is what Prometheus would.
SCRAPE = """
import re, sys, time, urllib.request
from pathlib import Path
from kd_ray.cluster.log_display import LogDisplay
from kd_ray.cluster.launch import launch
from kd_ray.results.store import open_store
from kd_ray.sweep.load import load_sweep

class Scraping(LogDisplay):
    def __exit__(self, *_):
        import ray
        node = ray.nodes()[0]
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for _ in range(120):
            page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=10).read().decode()
            is_final = re.search(r'ray_kd_ray_trials{[^}]*state="complete"[^}]*} 3\\.0', page)
            if is_final and all(sign in page for sign in ("trials_ended_total", "trials_per_hour", 'verb="create"')):
                break
            time.sleep(0.25)
        print(page)
        logs = Path(node["RayletSocketName"]).parents[1] / "logs"
        Path(sys.argv[3]).write_text("".join(file.read_text() for file in sorted(logs.glob("worker-*.err"))))

sys.exit(launch(load_sweep(sys.argv[1]), open_store(sys.argv[2]), display=Scraping(), log_format="json").exit_code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `scraped` leaves what it found."""
    return tmp_path_factory.mktemp("scraped")


@pytest.fixture(scope="module")
def scraped(folder: Path, trifeature_root: Path) -> subprocess.CompletedProcess[str]:
    """A sweep of three trials on Ray: the metrics of its node on stdout, its log on stderr, those of its workers in the file `workers`."""
    file = write_tiny_sweep(folder, trifeature_root, *SHORT)
    return subprocess.run(
        [sys.executable, "-c", SCRAPE, str(file), str(folder / "store"), str(folder / "workers")],
        cwd=ROOT,
        env=os.environ | {"RAY_metrics_report_interval_ms": "1000"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def samples(page: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """What kd_ray says of itself on a page of Prometheus: tags and value by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith("ray_kd_ray_"):
                found.setdefault(sample.name.removeprefix("ray_"), []).append((sample.labels, sample.value))
    return found


@pytest.mark.long
@pytest.mark.ray
def test_prometheus_finds_the_progress_of_a_sweep_at_rays_metrics_port(
    scraped: subprocess.CompletedProcess[str],
) -> None:
    assert scraped.returncode == 0, scraped.stderr
    found = samples(scraped.stdout)
    trials = {tags["state"]: value for tags, value in found["kd_ray_trials"]}
    assert trials == {"complete": 3, "running": 0, "pending": 0, "failed": 0}
    assert sum(value for tags, value in found["kd_ray_trials_ended_total"] if tags["outcome"] == "complete") == 3
    assert max(value for _, value in found["kd_ray_trials_per_hour"]) > 0
    verbs = {tags["verb"] for tags, value in found["kd_ray_store_seconds_count"] if value > 0}
    assert verbs >= {"read", "write", "create", "list"}
    tags = [tags for values in found.values() for tags, _ in values]
    assert {each["sweep"] for each in tags} == {"tiny"}
    assert not any("trial" in name.lower() for each in tags for name in each), "as many series as trials"


@pytest.mark.long
@pytest.mark.ray
def test_every_line_of_the_drivers_log_is_json_with_sweep_and_trials(
    scraped: subprocess.CompletedProcess[str],
) -> None:
    lines = [json.loads(line) for line in scraped.stderr.splitlines()]
    assert all(line["sweep"] == "tiny" and "trial_id" in line for line in lines)
    messages = [line["message"] for line in lines]
    assert messages[0] == "sweep tiny: 3 trials, 3 to run"
    ended = [line for line in lines if " ended: " in line["message"]]
    assert sum(len(line["trial_ids"]) for line in ended) == 3
    assert all(line["trial_id"] == (line["trial_ids"][0] if len(line["trial_ids"]) == 1 else None) for line in lines)


@pytest.mark.long
@pytest.mark.ray
def test_rays_log_folder_holds_what_workers_said_of_each_trial(
    scraped: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert scraped.returncode == 0, scraped.stderr
    said = (folder / "workers").read_text().splitlines()
    lines = [json.loads(line) for line in said if not line.startswith(":")]  # with a colon Ray names job and actor
    assert {line["sweep"] for line in lines} == {"tiny"}
    complete = [line["trial_id"] for line in lines if "is complete" in line["message"]]
    assert len(complete) == 3
    assert set(complete) == {
        trial_id
        for line in map(json.loads, scraped.stderr.splitlines())
        if " ended: " in line["message"]
        for trial_id in line["trial_ids"]
    }


def test_a_worker_logs_each_trial_by_its_id_and_failures_with_their_cause(
    store: Store, trifeature_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, as in one of Ray's, whose stderr is in Ray's log folder."""
    sweep = tiny_sweep(trifeature_root, *SHORT, "training.optimizer.lr=1e30")
    try:
        assert launch(sweep, store, runner="local", log_format="json").exit_code == 1
    finally:
        telemetry.log_as("text")
        telemetry.work_on(sweep="")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["sweep"] for line in lines} == {"tiny"}
    (complete,) = (line for line in lines if "is complete" in line["message"])
    assert complete["message"].startswith("teacher resnet20")
    failed = [line for line in lines if line["level"] == "error"]
    assert len(failed) == 2
    assert all("NonFiniteLossError" in line["message"] for line in failed)
    assert len({line["trial_id"] for line in (complete, *failed)}) == 3
    assert all(re.fullmatch(r"[0-9a-f]{16}", line["trial_id"]) for line in (complete, *failed))


def exported(metric: telemetry.Measurement) -> set[str]:
    """The names under which Prometheus finds a metric."""
    name = f"ray_{metric.name}"
    if metric.kind == "histogram":
        return {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return {f"{name}_total"} if metric.kind == "counter" else {name}


def test_the_dashboard_asks_only_for_metrics_that_exist_and_for_all_of_them() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    assert asked <= set().union(*map(exported, telemetry.MEASUREMENTS))
    for metric in telemetry.MEASUREMENTS:
        assert asked & exported(metric), f"no panel shows {metric.name}"
    (variable,) = (each for each in dashboard["templating"]["list"] if each["name"] == "sweep")
    assert "ray_kd_ray_trials" in variable["query"]
    assert all('sweep=~"$sweep"' in query for query in queries)
    tags = {"sweep", "le", *(tag for metric in telemetry.MEASUREMENTS for tag in metric.tags)}
    for query in queries:
        assert set(re.findall(r"(\w+)=~?\"", query)) <= tags
        assert {word for group in re.findall(r"by \(([^)]*)\)", query) for word in re.split(r", ?", group)} <= tags
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_a_line_is_about_one_trial_about_several_or_about_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("kd_ray")
    before = logger.level, logger.propagate
    telemetry.log_as("json")
    try:
        telemetry.work_on(sweep="demo", trial_ids=["a" * 16, "b" * 16])
        logger.info("both")
        with telemetry.about("b" * 16):
            logger.warning("one of %d", 2)
        telemetry.work_on(trial_ids=())
        try:
            int("no number")
        except ValueError:
            logger.exception("the sweep")
    finally:
        telemetry.log_as("text")
        telemetry.work_on(sweep="")
    assert (logger.level, logger.propagate) == before
    both, one, sweep = map(json.loads, capsys.readouterr().err.splitlines())
    assert (both["trial_id"], both["trial_ids"], both["level"]) == (None, ["a" * 16, "b" * 16], "info")
    assert (one["trial_id"], one["trial_ids"], one["message"]) == ("b" * 16, ["b" * 16], "one of 2")
    assert (sweep["trial_id"], sweep["trial_ids"], sweep["sweep"]) == (None, [], "demo")
    assert sweep["traceback"].endswith("ValueError: invalid literal for int() with base 10: 'no number'")


def test_a_program_that_set_up_its_own_logging_keeps_it() -> None:
    logger = logging.getLogger("kd_ray")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        telemetry.log_as("text")
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


def test_without_a_sink_a_measurement_is_nothing() -> None:
    """As on the local runner."""
    telemetry.measure_into(None)
    telemetry.record(telemetry.TRIALS_ENDED, 3, outcome="complete")


def test_metrics_have_bounded_tags_and_names_of_prometheus() -> None:
    bounded = {"state", "outcome", "cause", "verb", "device"}
    for metric in telemetry.MEASUREMENTS:
        assert re.fullmatch(r"kd_ray_[a-z_]+", metric.name)
        assert set(metric.tags) <= bounded
        assert (metric.kind == "histogram") == bool(metric.boundaries)
    assert len({metric.name for metric in telemetry.MEASUREMENTS}) == len(telemetry.MEASUREMENTS)
