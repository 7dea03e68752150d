"""Before the first step of a launch: is the sweep complete as it stands?

To launch a sweep again is to ask whether it is done. Where its newest manifest is what this kd_ray has planned for the same sweep file and
the same weights, and every trial in it is complete, nothing is planned. Whatever is not so is left to the four steps, which mend it. What
only training needs, as a folder of a text network that fits, is not checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kd_ray.cluster.launch_request import LaunchRequest
from kd_ray.cluster.shared_data.find_sets import has_text_networks
from kd_ray.lasting import without_garbage_search
from kd_ray.results.launch_plan import input_digest
from kd_ray.results.ledger import scan
from kd_ray.results.manifest import Manifest, find_manifest
from kd_ray.results.plan_mark import is_marked
from kd_ray.results.store import pretrained_key, record_key, sweep_key
from kd_ray.results.trial_lines import TrialLine, manifest_lines
from kd_ray.sweep.plan import is_file
from kd_ray.sweep.spec import TrialState


@dataclass(frozen=True, kw_only=True)
class FinishedSweep:
    """A sweep of which every trial is complete."""

    trials: tuple[TrialLine, ...]
    """In the order of the manifest."""
    records: Mapping[str, str]
    """The e_tag of the record of each trial, by trial_id."""
    has_settings: bool
    """Whether the grid has axes without a column of their own."""


@without_garbage_search()
def find_finished(request: LaunchRequest) -> FinishedSweep | None:
    """The sweep, where all that it asks for is complete and its manifest and inputs are in the store; None where a launch has to plan.

    Raises:
        OtherVersionError: the newest manifest was written by another version of kd_ray.
        SweepError: pretrained weights cannot be read.
    """
    store = request.store
    found = find_manifest(store, request.file.sweep.name)
    manifest = found.manifest
    if manifest is None or found.damaged or not _is_planned_from(manifest, request):
        return None
    trial_ids = [trial.trial_id for trial in manifest.active]
    # One look is enough for most sweeps that were cut off: they lack their last trial.
    if not store.exists(record_key(trial_ids[-1])):
        return None
    statuses = scan(store, trial_ids)
    if any(status.state is not TrialState.COMPLETE for status in statuses.values()):
        return None
    return FinishedSweep(
        trials=manifest_lines(manifest, statuses),
        records={trial_id: status.record_tag for trial_id, status in statuses.items()},
        has_settings=any(trial.settings for trial in manifest.active),
    )


def _is_planned_from(manifest: Manifest, request: LaunchRequest) -> bool:
    """Whether the manifest is what a plan of this request would be, and its inputs are in the store."""
    store = request.store
    if not manifest.active or not is_marked(store, manifest, request.file):
        return False
    if store.get(sweep_key(manifest.sweep)) != manifest.sweep_yaml.encode():
        return False
    if not manifest.weights:
        return True
    file = request.local_file if has_text_networks(request.file) else request.file
    return all(
        (request.weights.get(name) or input_digest(name, file)) == digest
        and (not is_file(name) or store.exists(pretrained_key(digest)))
        for name, digest in manifest.weights.items()
    )
