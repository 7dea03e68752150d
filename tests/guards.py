"""Breaks the product in one place after another and checks that `make test` would notice: `python -m tests.guards [NAME ...]`.

Each guard is one mistake that would make results wrong or unsafe. The tool works on a copy of the tree: it replaces the text in one file,
runs the tests that should fail, and puts the file back. First the same tests have to pass on the unchanged copy.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
_COPIED = ("kd_ray", "tests", "sweeps", "docs", "pyproject.toml", "README.md")


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One mistake, and the tests that have to fail because of it."""

    name: str
    file: str
    """Relative to the repository."""
    right: str
    """Text of the file that stands there exactly once."""
    wrong: str
    tests: tuple[str, ...]
    """Node ids of pytest, none of them marked `long`; at least one has to fail."""


GUARDS = (
    Guard(
        name="an identity leaves a field out",
        file="kd_ray/sweep/spec.py",
        right='    content = model.model_dump(mode="json")\n',
        wrong='    content = model.model_dump(mode="json")\n    content.pop("initial_weights", None)\n',
        tests=("tests/unit/sweep/test_spec.py",),
    ),
    Guard(
        name="a search sees the test split",
        file="kd_ray/data/families.py",
        right='    if dataset.evaluated_on == "validation":\n',
        wrong='    if dataset.evaluated_on == "neither":\n',
        tests=("tests/unit/tuning/test_splits.py",),
    ),
    Guard(
        name="candidates of a search enter the tables of comparisons",
        file="kd_ray/results/aggregate.py",
        right="    if is_tuning(sweep):  # its",
        wrong="    if not sweep:  # its",
        tests=("tests/unit/tuning/test_keeping.py",),
    ),
    Guard(
        name="a launch takes what another kd_ray has planned for its plan",
        file="kd_ray/results/plan_mark.py",
        right="stored == _mark(manifest, file)",
        wrong="stored.plan == _mark(manifest, file).plan",
        tests=("tests/unit/cluster/test_launch_finished.py",),
    ),
    Guard(
        name="a mark of a plan outlives its manifest",
        file="kd_ray/results/plan_mark.py",
        right="    trial_ids = [trial.trial_id for trial in manifest.active]\n",
        wrong="    trial_ids: list[str] = []\n",
        tests=("tests/unit/cluster/test_launch_finished.py",),
    ),
    Guard(
        name="a sweep that lacks a trial counts as finished",
        file="kd_ray/cluster/launch_finished.py",
        right="status.state is not TrialState.COMPLETE for",
        wrong="status.state is TrialState.FAILED for",
        tests=("tests/unit/cluster/test_launch_finished.py",),
    ),
    Guard(
        name="tables of several forms are read by the columns of the first part",
        file="kd_ray/results/table_form.py",
        right="    if found is None or found.but is None:\n",
        wrong="    if found is None:\n",
        tests=("tests/unit/results/test_query.py",),
    ),
    Guard(
        name="a search prefers the worst candidate",
        file="kd_ray/tuning/outcome.py",
        right='    return 1 if METRICS[tuning.metric].better == "higher" else -1\n',
        wrong='    return -1 if METRICS[tuning.metric].better == "higher" else 1\n',
        tests=("tests/unit/tuning/test_tune.py",),
    ),
    Guard(
        name="a fetched shard is not compared with its checksum",
        file="kd_ray/cluster/shared_data/fetch_data.py",
        right=" or sha256(data).hexdigest() != shard.sha256:\n",
        wrong=" or not sha256(data).hexdigest():\n",
        tests=("tests/unit/cluster/test_shared_data.py",),
    ),
    Guard(
        name="a fetched data set is deleted while it is used",
        file="kd_ray/cluster/shared_data/fetched_sets.py",
        right="fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        wrong="fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        tests=("tests/unit/cluster/test_shared_data.py",),
    ),
    Guard(
        name="fencing is ignored",
        file="kd_ray/distill/leases.py",
        right="            if lease is not None and ledger.is_superseded(self._store, lease):\n",
        wrong="            if lease is not None and not self:\n",
        tests=("tests/unit/distill/test_pack_run.py",),
    ),
    Guard(
        name="a lease is renewed too late",
        file="kd_ray/distill/leases.py",
        right="self._stop.wait(LEASE_TTL_S / 3)",
        wrong="self._stop.wait(LEASE_TTL_S * 1.5)",
        tests=("tests/unit/distill/test_leases.py",),
    ),
    Guard(
        name="an aggregation reads each record twice",
        file="kd_ray/results/read_once.py",
        right="        record = read_record(store, trial_id)\n",
        wrong="        read_record(store, trial_id)\n        record = read_record(store, trial_id)\n",
        tests=("tests/unit/results/test_aggregate.py",),
    ),
    Guard(
        name="Holm is off by one",
        file="kd_ray/analysis/two_groups.py",
        right="np.arange(len(sorted_M), 0, -1)",
        wrong="np.arange(len(sorted_M) - 1, -1, -1)",
        tests=("tests/unit/analysis/test_two_groups.py",),
    ),
    Guard(
        name="a table prints a p that decides nothing",
        file="kd_ray/cli/text_compare_full.py",
        right='            number(row.p_claim),\n            (row.status or "–")',
        wrong='            number(row.p),\n            (row.status or "–")',
        tests=("tests/unit/cli/test_text_compare.py",),
    ),
    Guard(
        name="what is planned now is forgotten when a memory is full",
        file="kd_ray/sweep/by_object.py",
        right="    while len(kept) > most:\n        kept.popitem(last=False)\n",
        wrong="    if len(kept) > most:\n        kept.clear()\n",
        tests=("tests/unit/sweep/test_spec.py", "tests/unit/sweep/test_by_object.py"),
    ),
    Guard(
        name="a count of classes has a bound that noise exceeds",
        file="kd_ray/analysis/two_groups.py",
        right='    usual = int(np.quantile(count_W, 1 - level, method="inverted_cdf")) if can_exceed else None\n',
        wrong='    usual = int(np.quantile(count_W, 1 - 3 * level, method="inverted_cdf")) if can_exceed else None\n',
        tests=("tests/unit/analysis/test_two_groups.py",),
    ),
    Guard(
        name="a standard deviation has ddof 0",
        file="kd_ray/analysis/study.py",
        right="defined.std(ddof=1)",
        wrong="defined.std(ddof=0)",
        tests=("tests/unit/analysis/test_study.py",),
    ),
    Guard(
        name="groups of test samples are part of an identity",
        file="kd_ray/sweep/spec.py",
        right="    if not spec.groups_in_id and not (objective and objective.import_path):\n",
        wrong="    if spec.groups_in_id:\n",
        tests=("tests/unit/sweep/test_identity.py",),
    ),
    Guard(
        name="trials of kd_ray 0.1 are trained again",
        file="kd_ray/results/former_ids.py",
        right="    if identity_of(spec) not in listed:\n",
        wrong="    if not listed:\n",
        tests=("tests/unit/results/test_former_ids.py",),
    ),
    Guard(
        name="a path leaves the data root",
        file="kd_ray/data/listed_images.py",
        right="    return os.path.commonpath([Path(top).absolute(), Path(full).absolute()]) == str(Path(top).absolute())\n",
        wrong="    return bool(os.path.commonpath([Path(top).absolute(), Path(full).absolute()]))\n",
        tests=("tests/unit/data/test_listed.py",),
    ),
    Guard(
        name="a pickle is accepted",
        file="kd_ray/distill/checkpoint.py",
        right="weights_only=True",
        wrong="weights_only=False",
        tests=("tests/unit/distill/test_checkpoint.py",),
    ),
    Guard(
        name="T squared is wrong",
        file="kd_ray/distill/objectives/loss.py",
        right="    scale = temperature**2 if t_squared else 1.0\n    return alpha * scale * soft",
        wrong="    scale = temperature if t_squared else 1.0\n    return alpha * scale * soft",
        tests=("tests/unit/distill/objectives/test_kd.py",),
    ),
    Guard(
        name="views come from another seed",
        file="kd_ray/distill/batches.py",
        right='stream(seed, "views", epoch)',
        wrong='stream(seed + 1, "views", epoch)',
        tests=("tests/unit/distill/test_batches.py",),
    ),
    Guard(
        name="a write follows a link out of the store",
        file="kd_ray/results/objects.py",
        right="        if (link := self._link(key)) is not None:\n            raise",
        wrong="        if (link := self._link(key)) is not None and not self:\n            raise",
        tests=("tests/unit/results/test_links.py",),
    ),
    Guard(
        name="a read follows a link out of the store",
        file="kd_ray/results/objects.py",
        right='is not None:\n                return None\n            try:\n                return self._ask("read"',
        wrong='is self:\n                return None\n            try:\n                return self._ask("read"',
        tests=("tests/unit/results/test_links.py",),
    ),
    Guard(
        name="JSON of any size is parsed",
        file="kd_ray/bounded.py",
        right="        if len(data) > self.most_bytes:\n",
        wrong="        if not self:\n",
        tests=("tests/unit/results/test_bounded_objects.py",),
    ),
    Guard(
        name="Parquet of any size is decoded",
        file="kd_ray/results/parquet.py",
        right="        if max(counts.num_values, counts.num_rows) > most_values:\n",
        wrong="        if not data:\n",
        tests=("tests/unit/results/test_parquet_footer.py",),
    ),
    Guard(
        name="SQL reads files",
        file="kd_ray/results/query.py",
        right='    connection.execute("SET enable_external_access = false")\n',
        wrong="",
        tests=("tests/unit/results/test_query.py",),
    ),
    Guard(
        name="SQL overwrites the part of a table",
        file="kd_ray/results/query.py",
        right="                _check_reads_only(connection, sql)\n",
        wrong="                pass\n",
        tests=("tests/unit/results/test_query.py",),
    ),
    Guard(
        name="a grid of any size is expanded",
        file="kd_ray/sweep/load.py",
        right="math.prod(counts)) > most_cells:",
        wrong="math.prod(counts)) > most_cells**9:",
        tests=("tests/unit/results/test_bombs.py::test_limit_of_cells_is_a_setting",),
    ),
    Guard(
        name="a formula reaches a spreadsheet",
        file="kd_ray/shown.py",
        right="if text.lstrip().startswith(_FORMULA) and not _is_number(text) else text",
        wrong="if not text and not _is_number(text) else text",
        tests=("tests/unit/cli/test_strangers.py",),
    ),
    Guard(
        name="an escape sequence reaches the terminal",
        file="kd_ray/shown.py",
        right="    return character in _DIRECTIONS or control_character(character) is not None\n",
        wrong="    return character in _DIRECTIONS\n",
        tests=("tests/unit/cli/test_strangers.py",),
    ),
    Guard(
        name="a private Ray listens to the network",
        file="kd_ray/cluster/ray_tune/private_ray.py",
        right='        yield {"_node_ip_address": _LOOPBACK}\n',
        wrong="        yield {}\n",
        tests=("tests/contract/test_private_ray.py::test_token_and_folder_are_those_of_one_launch",),
    ),
    Guard(
        name="every private Ray has the same token",
        file="kd_ray/cluster/ray_tune/private_ray.py",
        right="secrets.token_hex(32)",
        wrong='"0" * 64',
        tests=("tests/contract/test_private_ray.py::test_token_and_folder_are_those_of_one_launch",),
    ),
    Guard(
        name="a name holds a control character",
        file="kd_ray/data/listing.py",
        right="        if (character := control_character(text)) is not None:\n",
        wrong="        if not text and (character := control_character(text)) is not None:\n",
        tests=("tests/unit/data/test_listed_columns.py",),
    ),
    Guard(
        name="a full disk is an error of a library",
        file="kd_ray/data/cache.py",
        right="    except (OSError, SafetensorError, pa.ArrowException, StoreError) as error:\n",
        wrong="    except (OSError, pa.ArrowException, StoreError) as error:\n",
        tests=("tests/unit/data/test_full_disk.py",),
    ),
    Guard(
        name="a Ray that cannot start ends with a traceback",
        file="kd_ray/cluster/ray_tune/ray_runner.py",
        right="        except (Exception, SystemExit) as error:  # Ray raises",
        wrong="        except OSError as error:  # Ray raises",
        tests=("tests/contract/test_private_ray.py::test_ray_that_cannot_start_is_one_line",),
    ),
    Guard(
        name="the proof of a stranger's store is parsed at any depth",
        file="kd_ray/results/store_proof.py",
        right='        proof = _PROOF.read(store.get(proof_key()) or b"{}")\n',
        wrong='        proof = json.loads(store.get(proof_key()) or b"{}")\n',
        tests=("tests/unit/results/test_store_proof.py",),
    ),
    Guard(
        name="a lease from the future lasts",
        file="kd_ray/results/ledger.py",
        right="        return not self.lease.released and _age_s(self.lease.renewed_at) < -CLOCK_SKEW_S\n",
        wrong="        return not self\n",
        tests=("tests/unit/results/test_bounded_objects.py",),
    ),
    Guard(
        name="a holder whose clock is behind loses its trial",
        file="kd_ray/results/ledger.py",
        right="        return is_elsewhere and behind_s > CLOCK_SKEW_S and",
        wrong="        return is_elsewhere and behind_s > CLOCK_SKEW_S**9 and",
        tests=("tests/unit/results/test_bounded_objects.py",),
    ),
    Guard(
        name="another version of a network of the user's own is taken",
        file="kd_ray/models/own.py",
        right="    if version is not None and version != installed:\n",
        wrong="    if version is not None and not installed:\n",
        tests=("tests/unit/models/test_own.py::test_networks_that_cannot_be_used_are_named",),
    ),
    Guard(
        name="data that have changed since the first launch are taken",
        file="kd_ray/cluster/data_version.py",
        right="    if recorded not in (None, found):\n",
        wrong="    if recorded is not None and not found:\n",
        tests=("tests/unit/cluster/test_data_version.py",),
    ),
    Guard(
        name="a spreadsheet computes what a stranger wrote",
        file="kd_ray/analysis/export.py",
        right="    return _mapped(frame, lambda it: it if _is_plain(it) else csv_cell(_text(it)), csv_cell)\n",
        wrong="    return _mapped(frame, lambda it: it if _is_plain(it) else _text(it), csv_cell)\n",
        tests=("tests/unit/analysis/test_export.py::test_no_cell_is_a_formula",),
    ),
)


def broken(guard: Guard, content: str) -> str:
    """The content of the guard's file with the mistake in it. Raises ValueError when the text is not there exactly once."""
    if content.count(guard.right) != 1:
        raise ValueError(
            f"{guard.name}: {guard.file} holds {guard.right!r} {content.count(guard.right)} times, not once"
        )
    return content.replace(guard.right, guard.wrong)


def copy_tree(folder: Path) -> None:
    """What the tests need of this repository."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)


def run_tests(folder: Path, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """The tests of the copy on the product of the copy, up to the first failure."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long", *tests)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def check(folder: Path, guard: Guard) -> str | None:
    """The first test that fails because of the mistake; None when all pass. Raises ValueError for tests that cannot run."""
    file = folder / guard.file
    content = file.read_text()
    file.write_text(broken(guard, content))
    try:
        done = run_tests(folder, guard.tests)
    finally:
        file.write_text(content)
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return None
    if not failed:
        raise ValueError(f"{guard.name}: the tests did not run:\n{done.stdout}\n{done.stderr}")
    return failed.group(1)


def main(names: list[str]) -> int:
    """Check the guards with these names, or all; the exit code is 1 if a mistake goes unnoticed."""
    chosen = [guard for guard in GUARDS if not names or guard.name in names]
    if unknown := set(names) - {guard.name for guard in chosen}:
        print(f"no guards {sorted(unknown)}; there are {[guard.name for guard in GUARDS]}")
        return 2
    with TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder)
        before = run_tests(folder, dict.fromkeys(test for guard in chosen for test in guard.tests))
        if before.returncode:
            print(f"the tests fail on the unchanged tree:\n{before.stdout}{before.stderr}")
            return 1
        unnoticed = 0
        for guard in chosen:
            noticed_by = check(folder, guard)
            unnoticed += noticed_by is None
            print(f"{guard.name}: {noticed_by or 'NOT NOTICED'}", flush=True)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
