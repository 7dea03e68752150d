"""Finds the trials of kd_ray 0.1, in whose identity settings counted that only group test samples.

A trial that was planned is looked for under the identities that it had there: with the groups that it is asked for now, or with those that
a sweep of the store asks for, or asked for once. So it is not trained again, whatever groups are asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kd_ray.errors import OtherVersionError
from kd_ray.results.inventory import take_inventory
from kd_ray.results.manifest import Manifest, find_manifest
from kd_ray.results.store import SWEEPS, Store
from kd_ray.sweep.by_object import distinct
from kd_ray.sweep.classification import has_grouping
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import identity_of


def with_former_ids(store: Store, planned: Sequence[PlannedTrial]) -> tuple[PlannedTrial, ...]:
    """The same trials, teachers first; each with the identity under which a sweep of the store lists it, if one does."""
    asked = set(distinct(trial.spec.dataset for trial in planned))
    if not any(has_grouping(dataset) for dataset in asked) or any(trial.spec.groups_in_id for trial in planned):
        return tuple(planned)
    manifests = _manifests(store)
    listed = {line.trial_id for manifest in manifests for line in manifest.trials}
    known = [dataset for manifest in manifests for dataset in manifest.grouped_datasets]
    variants = {dataset: _variants(dataset, known) for dataset in asked}
    found: dict[str, str] = {}
    return tuple(_found(trial, variants[trial.spec.dataset], listed, found) for trial in planned)


def _found(trial: PlannedTrial, variants: Sequence[Dataset], listed: set[str], found: dict[str, str]) -> PlannedTrial:
    """One trial; `found` are the identities of teachers, by those that were planned."""
    spec = trial.spec
    if spec.teacher and spec.teacher.trial_id in found:
        spec = spec.changed(teacher=spec.teacher.model_copy(update={"trial_id": found[spec.teacher.trial_id]}))
    if identity_of(spec) not in listed:
        former = (spec.changed(dataset=dataset, groups_in_id=True) for dataset in variants)
        spec = next((it for it in former if identity_of(it) in listed), spec)
    if (trial_id := identity_of(spec)) != trial.trial_id:
        found[trial.trial_id] = trial_id
        is_same = spec.dataset == trial.spec.dataset
        return replace(trial, spec=spec, regrouped=None if is_same else trial.spec.dataset)
    return trial


def _manifests(store: Store) -> list[Manifest]:
    found = take_inventory(store, SWEEPS).sweeps

    def read(sweep: str) -> Manifest | None:
        try:
            return find_manifest(store, sweep, found[sweep].manifests).manifest
        except OtherVersionError:
            return None

    return [it for it in store.at_once(read, sorted(found)) if it is not None]


def _variants(asked: Dataset, known: Sequence[Dataset]) -> Sequence[Dataset]:
    """What `asked` may have been with other groups."""
    plain = asked.without_grouping()
    filled = [_with_tokenizer_of(asked, dataset) for dataset in known]
    return list(dict.fromkeys([asked, *(it for it in filled if it.without_grouping() == plain)]))


def _with_tokenizer_of(asked: Dataset, other: Dataset) -> Dataset:
    """A sweep file may leave the version of its tokenizer out."""
    version: Mapping[str, object] = {"tokenizer_version": getattr(asked, "tokenizer_version", None)}
    is_open = getattr(other, "tokenizer_version", "") is None
    return other.model_copy(update=version) if is_open else other
