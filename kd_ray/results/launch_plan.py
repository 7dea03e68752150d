"""What a launch of a sweep file would do now: the state of every trial that it asks for, and the reason. Only reads."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kd_ray.errors import DataError, SweepError
from kd_ray.lasting import without_garbage_search
from kd_ray.results.former_ids import with_former_ids
from kd_ray.results.ledger import TrialStatus, scan
from kd_ray.results.manifest import find_manifest
from kd_ray.results.probe import chosen_pack_size, read_probe, representative
from kd_ray.results.store import Store
from kd_ray.results.trial_lines import TrialLine, count_states, states_html, trial_line
from kd_ray.sweep.architectures import is_text_model
from kd_ray.sweep.encoders import TOKENIZER_OF, check_encoder, read_encoder, tokenizer_version
from kd_ray.sweep.initial import field_of, pretrained_files
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.packs import Pack, make_packs
from kd_ray.sweep.plan import PlannedTrial, expand
from kd_ray.sweep.spec import Role, TrialState


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a launch of a sweep would do now."""

    sweep: str
    store: str
    trials: tuple[TrialLine, ...]
    planned: tuple[PlannedTrial, ...]
    pack_size: int
    not_run: frozenset[str]
    """Trials that a launch would leave alone now: settled ones, and those of another launch."""
    num_dropped: int
    """Complete trials that the sweep of this name asked for before and does not ask for now."""
    advice: str | None
    """Advice of a probe about `training.execution`, where there is one."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the weights that the sweep gives, by path."""
    claims: tuple[str, ...] = ()
    """The claims that the sweep declares, in words."""
    records: Mapping[str, str] = field(default_factory=dict)
    """The e_tag of the record of each complete trial, by trial_id."""

    @cached_property
    def packs(self) -> tuple[Pack, ...]:
        """The packs that a launch would start now, in order."""
        return make_packs(self.planned, pack_size=self.pack_size, done=self.not_run)

    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return count_states(self.trials)

    def dropped(self) -> str:
        """What happens to the trials that the sweep no longer asks for, in a sentence."""
        what = "complete trials of this sweep are no longer asked for"
        return f"{self.num_dropped} {what}: their records stay, their rows leave the tables"

    def _repr_html_(self) -> str:
        """For notebooks: how many trials are in each state, and the trials."""
        return states_html(f"plan of sweep {self.sweep} → {self.store}", self.trials)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "sweep": self.sweep,
            "store": self.store,
            "counts": self.counts(),
            "num_dropped": self.num_dropped,
            "claims": self.claims,
            "trials": [asdict(trial) for trial in self.trials],
            "advice": self.advice,
            "packs": [[trial.trial_id for trial in pack.trials] for pack in self.packs],
        }


@without_garbage_search()
def plan(
    file: SweepFile, store: Store | None, *, retry_failed: bool = False, weights: Mapping[str, str] | None = None
) -> Plan:
    """What would run and what is done already; touches nothing. Without a store, everything is pending.

    `weights` are known SHA-256 digests by path, for pretrained weights whose file may be gone.

    Raises:
        SweepError: pretrained weights cannot be read, or a cell of the grid is not valid.
    """
    digests: dict[str, str] = {}

    def digest(name: str) -> str:
        if name not in digests:
            digests[name] = (weights or {}).get(name) or input_digest(name, file)
        return digests[name]

    planned = expand(file, digest)
    if store:
        planned = with_former_ids(store, planned)
    if not weights:
        # A sweep that is resumed was checked before, and its folders may be on another machine.
        _check_encoders(file, planned)
    ids = [trial.trial_id for trial in planned]
    pending = TrialStatus(state=TrialState.PENDING)
    dropped = _no_longer_asked(store, file.sweep.name, ids) if store else set()
    statuses = scan(store, {*ids, *dropped}) if store else dict.fromkeys(ids, pending)
    lines = tuple(_planned_line(trial, statuses, retry_failed=retry_failed) for trial in planned)
    idle = {line.trial_id for line in lines if line.is_settled or line.state == TrialState.RUNNING}
    if retry_failed:
        idle -= {line.trial_id for line in lines if line.state == TrialState.FAILED}
    placement, student = file.sweep.placement, representative(planned)
    probe = read_probe(store, student, placement) if store and student else None
    pack_size = chosen_pack_size(placement, probe, planned, done=idle, slots=1)
    return Plan(
        sweep=file.sweep.name,
        store=store.url if store else "",
        trials=lines,
        planned=planned,
        weights=digests,
        pack_size=pack_size,
        not_run=frozenset(idle),
        claims=tuple(claim.text() for claim in file.sweep.claims),
        records={trial_id: status.record_tag for trial_id, status in statuses.items() if status.record_tag},
        advice=probe.advice() if probe else None,
        num_dropped=sum(statuses[trial_id].state is TrialState.COMPLETE for trial_id in dropped),
    )


def _no_longer_asked(store: Store, sweep: str, asked: Sequence[str]) -> set[str]:
    """Trials that the sweep of this name asked for before and does not ask for now."""
    before = find_manifest(store, sweep).manifest
    return {trial.trial_id for trial in before.active} - set(asked) if before else set()


def input_digest(name: str, file: SweepFile) -> str:
    """What `sweep/plan.py:WeightsDigest` asks for: of a file, a network's folder, or its tokenizer.

    Raises:
        SweepError: it cannot be read.
    """
    root = Path(file.sweep.placement.data_root).expanduser()
    try:
        if name.startswith(TOKENIZER_OF):
            return tokenizer_version(name.removeprefix(TOKENIZER_OF), root)
        if is_text_model(name):
            return read_encoder(name, root).version
    except DataError as error:
        raise SweepError(f"{file.source}: {error}") from error
    return file_digest(name, file)


def _check_encoders(file: SweepFile, planned: Sequence[PlannedTrial]) -> None:
    """Refuse text networks whose folder does not fit the settings, as `check_encoder` defines it."""
    root = Path(file.sweep.placement.data_root).expanduser()
    seen = set()
    for trial in planned:
        spec = trial.spec
        if spec.encoder is None or (what := (spec.model, spec.encoder, spec.dataset_id)) in seen:
            continue
        seen.add(what)
        try:
            check_encoder(spec.model, spec.encoder, spec.dataset, root)
        except DataError as error:
            raise SweepError(
                f"{file.source}: {'student' if spec.role != Role.TEACHER else 'teacher'}.{error}"
            ) from error


def file_digest(path: str, file: SweepFile) -> str:
    """SHA-256 of a pretrained weights file.

    Raises:
        SweepError: the file cannot be read.
    """
    try:
        with Path(path).expanduser().open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        advice = "; `kd-ray launch` fetches it" if path in pretrained_files(file) else ""
        where = f"{file.source}: {field_of(file, path)}"
        raise SweepError(f"{where}: cannot read {path!r}: {error.strerror}{advice}") from error


@without_garbage_search()
def planned_lines(store: Store, planned: Sequence[PlannedTrial]) -> tuple[TrialLine, ...]:
    """The trials of a launch as they are now, whatever the newest manifest asks for."""
    statuses = scan(store, [trial.trial_id for trial in planned])
    return tuple(_planned_line(trial, statuses, retry_failed=False) for trial in planned)


def _planned_line(trial: PlannedTrial, statuses: Mapping[str, TrialStatus], *, retry_failed: bool) -> TrialLine:
    spec = trial.spec
    teacher = spec.teacher.trial_id if spec.teacher else None
    return trial_line(
        trial.trial_id, spec.role.value, trial.description, spec.epochs, teacher, statuses, retry_failed=retry_failed
    )
