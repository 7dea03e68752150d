"""What aggregations have read from a store, so that they do not read it again."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from kd_ray.errors import CorruptObjectError
from kd_ray.results.added_features import samples_with
from kd_ray.results.record import Record, Samples, read_record, read_samples
from kd_ray.results.row_settings import AddedFeatures
from kd_ray.results.store import Store

MOST_RECORDS, MOST_SAMPLES = 512, 5_000_000
"""Records that are held, and their test samples together, which take 12 bytes each."""


class RecordsRead:
    """The last records by trial_id, each with the e_tag under which it was listed. One that was written again has another e_tag.

    While a sweep runs, the part of the tables that fills up is made again after every pack.
    """

    def __init__(self, *, most: int = MOST_RECORDS) -> None:
        self._most = most
        self._records: OrderedDict[str, tuple[str, Record]] = OrderedDict()
        self._num_samples = 0
        self._lock = threading.Lock()

    def read(self, store: Store, trial_id: str, e_tag: str) -> Record | None:
        """As `read_record`."""
        with self._lock:
            known = self._records.get(trial_id)
            if known is not None and known[0] == e_tag:
                self._records.move_to_end(trial_id)
                return known[1]
        record = read_record(store, trial_id)
        if record is not None:
            with self._lock:
                self._hold(trial_id, e_tag, record)
        return record

    def _hold(self, trial_id: str, e_tag: str, record: Record) -> None:
        former = self._records.pop(trial_id, None)
        self._num_samples += len(record.test.predictions_N) - (len(former[1].test.predictions_N) if former else 0)
        self._records[trial_id] = (e_tag, record)
        while len(self._records) > self._most or self._num_samples > MOST_SAMPLES:
            _, (_, oldest) = self._records.popitem(last=False)
            self._num_samples -= len(oldest.test.predictions_N)


class SamplesRead:
    """Samples with added features by dataset_id, each read once."""

    def __init__(self, store: Store, added: Sequence[AddedFeatures]) -> None:
        self._store = store
        self._added = added
        self._samples: dict[str, Samples] = {}

    def __getitem__(self, dataset_id: str) -> Samples:
        if dataset_id not in self._samples:
            samples = samples_with(self._store, dataset_id, self._added)
            if samples is None:
                raise CorruptObjectError(f"store {self._store.url}: the samples of data set {dataset_id} are missing")
            self._samples[dataset_id] = samples
        return self._samples[dataset_id]

    def is_whole(self, dataset_id: str) -> bool:
        """Whether the samples without added features can be read."""
        try:
            return read_samples(self._store, dataset_id) is not None
        except CorruptObjectError:
            return False
