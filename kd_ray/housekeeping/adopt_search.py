"""What a search has beside the records of its trials, for `adopt`: how trials did where they were stopped, and the table `tuning`."""

from collections.abc import Callable, Iterator

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.results.inventory import take_inventory
from kd_ray.results.manifest import Manifest
from kd_ray.results.record import encode_record, read_stop
from kd_ray.results.schema import TUNING
from kd_ray.results.store import TRIALS, Store, part_key, stop_key
from kd_ray.sweep.tuning_settings import is_tuning


def copy_search(
    source: Store, target: Store, manifest: Manifest, copy_samples: Callable[[str], object]
) -> Iterator[str]:
    """Copy what the target lacks of a search; yields what could not be copied. Nothing is copied for other sweeps.

    `copy_samples` copies the samples of a data set, and raises CorruptObjectError when it cannot.
    """
    if not is_tuning(manifest.sweep):
        return
    trials = take_inventory(source, TRIALS).trials
    for trial_id in (line.trial_id for line in manifest.trials if line.trial_id in trials):
        for epoch in trials[trial_id].stops:
            try:
                if (stop := read_stop(source, trial_id, epoch)) is not None:
                    copy_samples(stop.spec.dataset_id)
                    target.put_new(stop_key(trial_id, epoch), encode_record(stop), durable=True)
            except (CorruptObjectError, OtherVersionError) as error:
                yield f"a stop of trial {trial_id} is left where it is: {error}"
    key = part_key(TUNING.name, manifest.sweep, 0)
    if (table := source.get(key)) is not None:
        target.put_new(key, table)
