"""The manifest: what a sweep asked for, resolved, trial by trial.

`resume`, `status` and the tables read it, so that none of them needs the sweep file. Manifests are numbered and created only if absent.
Each continues the one before: a trial keeps its position, because positions decide which part of a table holds its rows. New trials get
positions in the order in which they run, so that parts fill up one after another while the sweep runs. Trials that are no longer asked for
stay listed, as inactive.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from kd_ray.bounded import MEGABYTE, JsonForm
from kd_ray.errors import CorruptObjectError, InvalidInputError, KdRayError, OtherVersionError
from kd_ray.lasting import without_garbage_search
from kd_ray.results.declared import DeclaredClaim, continue_declared
from kd_ray.results.inventory import manifests, sweep_names
from kd_ray.results.row_settings import RowSettings
from kd_ray.results.store import Store, manifest_key, quarantine, sweep_key
from kd_ray.results.store_proof import prove_store

if TYPE_CHECKING:
    from kd_ray.sweep.config import Sweep
    from kd_ray.sweep.datasets import Dataset
    from kd_ray.sweep.plan import PlannedTrial

# The models of sweep files take half a second to import. Lists of trials do not need them, so functions that do import them.

WITHOUT_CLAIMS, WITHOUT_GROUPS, MANIFEST_VERSION = 2, 3, 4
"""A manifest that says nothing of claims, or of the groups of its data sets, has the version that an older kd_ray reads as well."""
_ADDED = ("least_joint_groups", "added")
"""Row settings that were added after kd_ray 0.1; left out where they are empty."""
_STORED_NAMES = {"row_settings": "fold"}
"""Fields that have another name in stored manifests, which stay readable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestTrial:
    """One line of a manifest."""

    trial_id: str
    role: str
    description: str
    dataset_id: str
    epochs: int
    teacher: str | None
    """trial_id of its teacher."""
    settings: Mapping[str, str]
    """Values of grid axes that have no column of their own."""
    active: bool = True
    """Whether the sweep asks for it now."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a sweep asked for."""

    sweep: str
    generation: int
    sweep_yaml: str
    """The sweep file, overrides applied, paths absolute."""
    weights: Mapping[str, str]
    """SHA-256 of pretrained weights, by path. Also the versions of networks of texts and of tokenizers, by `hf:NAME`: their folders are
    not copied into the store."""
    row_settings: RowSettings
    trials: tuple[ManifestTrial, ...]
    declared: tuple[DeclaredClaim, ...] = ()
    """Claims that its sweep file has, or had once."""
    former_datasets: tuple[str, ...] = ()
    """Data sets that its sweep file had once, as JSON, where they have settings that only group test samples. Trials of kd_ray 0.1 have
    their identity by them."""

    @property
    def grouped_datasets(self) -> "tuple[Dataset, ...]":
        """The data sets with such settings that its sweep file has, as far as it can still be read, or had once."""
        from kd_ray.sweep.classification import has_grouping
        from kd_ray.sweep.load import parse_sweep
        from kd_ray.sweep.plan import datasets_of

        try:
            datasets = datasets_of(parse_sweep(self.sweep_yaml, source=self.sweep))
        except KdRayError:
            datasets = ()
        return (*filter(has_grouping, datasets), *self.former_grouped)

    @property
    def former_grouped(self) -> "tuple[Dataset, ...]":
        """Those of them that it had once."""
        from kd_ray.sweep.classification import has_grouping

        return tuple(it for it in map(_former_dataset, self.former_datasets) if it and has_grouping(it))

    @property
    def active(self) -> tuple[ManifestTrial, ...]:
        """The trials the sweep asks for now."""
        return tuple(trial for trial in self.trials if trial.active)

    @property
    def stored_weights(self) -> frozenset[str]:
        """SHA-256 of the pretrained weights that the store holds a copy of."""
        from kd_ray.sweep.plan import is_file

        return frozenset(digest for name, digest in self.weights.items() if is_file(name))

    def to_json(self) -> bytes:
        """As it stands in the store."""
        fields = {_STORED_NAMES.get(name, name): value for name, value in asdict(self).items()}
        if not self.declared:
            del fields["declared"]
        if not self.former_datasets:
            del fields["former_datasets"]
        for name in _ADDED:
            if not fields["fold"][name]:
                del fields["fold"][name]
        content = json.dumps(fields, separators=(",", ":"))
        version = WITHOUT_GROUPS if self.declared else WITHOUT_CLAIMS
        if self.former_datasets or any(name in fields["fold"] for name in _ADDED):
            version = MANIFEST_VERSION
        # The content is text within text, so that its digest is that of its bytes.
        outer = {"manifest_version": version, "sha256": _sha256(content), "content": content}
        return json.dumps(outer, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read a manifest; raises ValueError when it is not one."""
        outer = _OUTER.read(data)
        if outer.manifest_version not in (WITHOUT_CLAIMS, WITHOUT_GROUPS, MANIFEST_VERSION):
            raise OtherVersionError("it was written by another version of kd_ray")
        if _sha256(outer.content) != outer.sha256:
            raise ValueError("its digest is that of another content")
        content = _CONTENT.read(outer.content)
        return cls(
            sweep=content.sweep,
            generation=content.generation,
            sweep_yaml=content.sweep_yaml,
            weights=content.weights,
            row_settings=content.fold,
            trials=content.trials,
            declared=content.declared,
            former_datasets=content.former_datasets,
        )


@dataclass(frozen=True, kw_only=True)
class _Outer:
    """The text of a manifest."""

    manifest_version: int
    sha256: str = ""
    content: str = ""


@dataclass(frozen=True, kw_only=True)
class _Content:
    """The text within, by its stored names."""

    sweep: str
    generation: int
    sweep_yaml: str
    weights: dict[str, str]
    fold: RowSettings
    trials: tuple[ManifestTrial, ...]
    declared: tuple[DeclaredClaim, ...] = ()
    former_datasets: tuple[str, ...] = ()


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _former_dataset(text: str) -> "Dataset | None":
    """None where the settings can no longer be read."""
    from pydantic import TypeAdapter, ValidationError

    from kd_ray.sweep.datasets import Dataset

    adapter: TypeAdapter[Dataset] = TypeAdapter(Dataset)
    try:
        return adapter.validate_json(text)
    except ValidationError:
        return None


MOST_BYTES = 1024 * MEGABYTE
"""A manifest has about 400 bytes for each trial."""
_OUTER: JsonForm[_Outer] = JsonForm(kind=_Outer, most_bytes=MOST_BYTES)
_CONTENT: JsonForm[_Content] = JsonForm(kind=_Content, most_bytes=MOST_BYTES)


@dataclass(frozen=True, kw_only=True)
class FoundManifest:
    """The manifests of a sweep: the newest readable one, and the damaged ones above it."""

    manifest: Manifest | None
    """The newest that can be read."""
    newest: int
    """Generation of the newest, readable or not; 0 when there is none."""
    damaged: Mapping[str, bytes]
    """Content of newer ones that cannot be read, by key."""


def read_manifest(store: Store, sweep: str, listed: Collection[int] | None = None) -> Manifest:
    """The newest manifest of a sweep that can be read; `listed` are its generations, where they are known.

    Raises:
        InvalidInputError: the store has no such sweep; the message names those it has.
        CorruptObjectError: it has, but no manifest can be read.
    """
    found = find_manifest(store, sweep, listed)
    if found.manifest is not None:
        return found.manifest
    if found.damaged:
        keys = ", ".join(repr(key) for key in found.damaged)
        raise CorruptObjectError(
            f"store {store.url}: no whole manifest of sweep {sweep} is left ({keys}); "
            "launching its sweep file, or `kd-ray resume`, writes a new one"
        )
    names = ", ".join(sweep_names(store)) or "none"
    raise InvalidInputError(f"store {store.url}: no sweep {sweep!r}; it has: {names}")


@without_garbage_search()
def write_manifest(
    store: Store, sweep: "Sweep", trials: "Sequence[PlannedTrial]", *, sweep_yaml: str, weights: Mapping[str, str]
) -> Manifest:
    """Record what a sweep asks for; nothing is written when that is what the newest manifest says already.

    Damaged manifests go into quarantine as soon as there is a newer one.
    """
    while True:
        found = find_manifest(store, sweep.name)
        manifest = _continue(store, found, sweep, trials, sweep_yaml=sweep_yaml, weights=weights)
        old = found.manifest
        if old is not None and not found.damaged and replace(manifest, generation=old.generation) == old:
            if store.get(sweep_key(sweep.name)) != sweep_yaml.encode():
                store.put(sweep_key(sweep.name), sweep_yaml.encode())
            return old
        prove_store(store)
        if store.put_new(manifest_key(sweep.name, manifest.generation), manifest.to_json()):
            store.put(sweep_key(sweep.name), sweep_yaml.encode())
            for key, data in found.damaged.items():
                quarantine(store, key, data)
            return manifest


def find_manifest(store: Store, sweep: str, listed: Collection[int] | None = None) -> FoundManifest:
    """The newest manifest of a sweep that can be read, and what cannot be read above it; `listed` as above.

    Raises:
        OtherVersionError: the newest whole one was written by another version of kd_ray.
    """
    generations = sorted(manifests(store, sweep) if listed is None else listed, reverse=True)
    newest = generations[0] if generations else 0
    damaged: dict[str, bytes] = {}
    for key in (manifest_key(sweep, generation) for generation in generations):
        data = store.get(key) or b""
        try:
            return FoundManifest(manifest=_parsed(data), newest=newest, damaged=damaged)
        except OtherVersionError as error:
            raise OtherVersionError(f"store {store.url}: {key!r}: {error}") from error
        except ValueError:
            damaged[key] = data
    return FoundManifest(manifest=None, newest=newest, damaged=damaged)


_last_parsed: tuple[bytes, Manifest] | None = None
"""The last manifest with the SHA-256 of its content: a launch reads the same one several times, and to parse 100,000 lines takes half a
second."""


def _parsed(data: bytes) -> Manifest:
    global _last_parsed  # noqa: PLW0603 (one value, replaced as a whole)
    last, digest = _last_parsed, hashlib.sha256(data).digest()
    if last is None or last[0] != digest:
        last = _last_parsed = (digest, Manifest.from_json(data))
    return last[1]


def _continue(
    store: Store,
    found: FoundManifest,
    sweep: "Sweep",
    trials: "Sequence[PlannedTrial]",
    *,
    sweep_yaml: str,
    weights: Mapping[str, str],
) -> Manifest:
    from kd_ray.sweep.by_object import distinct
    from kd_ray.sweep.classification import Classification
    from kd_ray.sweep.packs import make_packs

    asked = {trial.trial_id: trial for trial in trials}
    before = found.manifest.trials if found.manifest else ()
    kept = [_line(asked[it.trial_id]) if it.trial_id in asked else replace(it, active=False) for it in before]
    known = {it.trial_id for it in before}
    new = [trial for trial in trials if trial.trial_id not in known]
    lines = (*kept, *(_line(trial) for pack in make_packs(new, pack_size=len(new)) for trial in pack.trials))
    declared = found.manifest.declared if found.manifest else ()
    added = found.manifest.row_settings.added if found.manifest else ()
    asked_for = set(distinct(trial.dataset for trial in trials))
    before_now: tuple[Dataset, ...] = ()
    if found.manifest is not None:
        # A sweep file that has not changed has the data sets that are asked for now, and is not read again.
        has_changed = found.manifest.sweep_yaml != sweep_yaml
        before_now = found.manifest.grouped_datasets if has_changed else found.manifest.former_grouped
    more = [name for table in added for name in table.features]
    return Manifest(
        sweep=sweep.name,
        generation=found.newest + 1,
        sweep_yaml=sweep_yaml,
        weights=dict(weights),
        row_settings=RowSettings(
            sweep=sweep.name,
            sensitive_features=tuple(dict.fromkeys([*sweep.sensitive_features, *more])),
            added=added,
            intersections=sweep.intersections,
            least_joint_groups={
                trial.dataset_id: trial.dataset.least_joint_group
                for trial in trials
                if type(trial.dataset).least_joint_group is not Classification.least_joint_group
            },
        ),
        trials=lines,
        declared=continue_declared(declared, sweep.claims, store=store, trial_ids=[line.trial_id for line in lines]),
        former_datasets=tuple(dict.fromkeys(it.model_dump_json() for it in before_now if it not in asked_for)),
    )


def _line(trial: "PlannedTrial") -> ManifestTrial:
    from kd_ray.sweep.plan import settings_json

    spec = trial.spec
    return ManifestTrial(
        trial_id=trial.trial_id,
        role=spec.role.value,
        description=trial.description,
        dataset_id=trial.dataset_id,
        epochs=spec.epochs,
        teacher=spec.teacher.trial_id if spec.teacher else None,
        settings=settings_json(trial.settings),
    )
