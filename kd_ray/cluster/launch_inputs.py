"""Second step of a launch: write to the store what the trials need: pretrained weights, and the manifest with what was asked for."""

from collections.abc import Sequence
from pathlib import Path

from kd_ray.cluster.launch_request import LaunchRequest, RequestedTrials
from kd_ray.errors import CorruptObjectError, InvalidInputError
from kd_ray.results import ledger
from kd_ray.results.launch_plan import Plan
from kd_ray.results.manifest import Manifest, read_manifest, write_manifest
from kd_ray.results.store import Store, pretrained_key, sweep_key
from kd_ray.results.store_proof import prove_store
from kd_ray.sweep.load import MOST_CELLS, SweepFile, parse_sweep
from kd_ray.sweep.plan import is_file
from kd_ray.sweep.spec import TrialState
from kd_ray.sweep.tuning_settings import is_tuning


def write_inputs(request: LaunchRequest, plan: Plan, requested: RequestedTrials) -> Manifest:
    """Write the pretrained weights that the store lacks, and the manifest. For a retry, delete the errors of the failed trials.

    Raises:
        InvalidInputError: the store does not create an object only once, so that two launches would train the same trials.
    """
    store = request.store
    if requested.to_run:
        prove_store(store)
    for path, digest in plan.weights.items():
        if is_file(path) and not store.exists(pretrained_key(digest)):
            store.put(pretrained_key(digest), Path(path).expanduser().read_bytes())
    manifest = write_manifest(
        store, request.file.sweep, plan.planned, sweep_yaml=request.file.to_yaml(), weights=dict(plan.weights)
    )
    if requested.retries_failed:
        to_run = {trial.trial_id for trial in requested.to_run}
        for view in plan.trials:
            if view.state == TrialState.FAILED and view.trial_id in to_run:
                ledger.clear_error(store, view.trial_id)
    return manifest


def resume_file(
    store: Store, sweep: str, overrides: Sequence[str] = (), *, most_cells: int = MOST_CELLS
) -> tuple[SweepFile, dict[str, str]]:
    """The inputs of an earlier launch, read from its manifest: the sweep file, and the digests of its pretrained weights.

    `overrides` and `most_cells` are as for `load_sweep`.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    source = f"sweep {sweep} in {store.url}"
    if is_tuning(sweep):
        raise InvalidInputError(f"{source}: it is a search; continue it by `kd-ray tune` with its sweep file")

    def parsed(text: str) -> SweepFile:
        return parse_sweep(text, source=source, overrides=overrides, most_cells=most_cells)

    try:
        manifest = read_manifest(store, sweep)
    except CorruptObjectError:
        # The sweep file is also stored beside the manifests. Only the digests of pretrained weights have to be computed again.
        if (text := store.get(sweep_key(sweep))) is None:
            raise
        return parsed(text.decode(errors="replace")), {}
    return parsed(manifest.sweep_yaml), dict(manifest.weights)
