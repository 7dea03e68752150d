"""The table `chance_levels`: chance levels that were computed once stay with their trial, and groups are not dealt anew."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.analysis.chance import DRAWS, Chance, chance_levels
from kd_ray.analysis.resampling import FAIRNESS
from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.results.comparison_schema import CHANCE_LEVELS
from kd_ray.results.query import Results
from kd_ray.results.store import part_key
from kd_ray.results.table_parts import encode_part

Key = tuple[str, str, str]
"""trial_id, sensitive feature, and digest of the labels and groups that were dealt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownLevels:
    """Chance levels by key, (M,) mean and (M,) standard deviation each; `of` adds what is missing."""

    levels: dict[Key, tuple[FloatArray, FloatArray]] = field(default_factory=dict)

    def of(
        self,
        trial_ids: Sequence[str],
        feature: str,
        labels_N: IntArray,
        predictions: Sequence[npt.NDArray[np.integer]],
        groups: Groups,
        *,
        num_classes: int,
    ) -> Chance:
        """Chance levels of T trials for a feature; only those that are not known yet are computed."""
        digest = digest_of(labels_N, groups)
        keys = [(trial_id, feature, digest) for trial_id in trial_ids]
        new = [t for t, key in enumerate(keys) if key not in self.levels]
        if new:
            found = chance_levels(labels_N, [predictions[t] for t in new], groups, num_classes=num_classes)
            for i, t in enumerate(new):
                self.levels[keys[t]] = (found.mean_TM[i], found.sd_TM[i])
        return Chance(
            mean_TM=np.stack([self.levels[key][0] for key in keys]),
            sd_TM=np.stack([self.levels[key][1] for key in keys]),
        )


def digest_of(labels_N: IntArray, groups: Groups) -> str:
    """What a chance level depends on besides the predictions, as 16 hex digits."""
    parts = (str(DRAWS).encode(), np.ascontiguousarray(labels_N).tobytes(), groups.membership_NG.tobytes())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def read_levels(results: Results, sweep: str) -> KnownLevels:
    """The chance levels of a sweep that its store holds."""
    by_key: dict[Key, dict[str, tuple[float | None, float | None]]] = {}
    for row in results.table(CHANCE_LEVELS.name, sweep=sweep).to_pylist():
        key = (row["trial_id"], row["sensitive_feature"], row["groups_digest"])
        by_key.setdefault(key, {})[row["metric"]] = (row["chance_level"], row["chance_sd"])
    whole = {key: metrics for key, metrics in by_key.items() if set(metrics) == set(FAIRNESS)}
    return KnownLevels(levels={key: _arrays(metrics) for key, metrics in whole.items()})


def write_levels(results: Results, sweep: str, known: KnownLevels) -> None:
    """Replace the chance levels of a sweep, in one atomic write."""
    rows = [
        (sweep, *key, metric, _none(mean_M[m]), _none(sd_M[m]))
        for key, (mean_M, sd_M) in known.levels.items()
        for m, metric in enumerate(FAIRNESS)
    ]
    schema = CHANCE_LEVELS.arrow_schema
    columns = [pa.array([row[i] for row in rows], type=item.type) for i, item in enumerate(schema)]
    part = encode_part(pa.table(columns, schema=schema), CHANCE_LEVELS.name, sweep)
    results.store.put(part_key(CHANCE_LEVELS.name, sweep, 0), part)


def _arrays(metrics: Mapping[str, tuple[float | None, float | None]]) -> tuple[FloatArray, FloatArray]:
    values = np.array([[np.nan if it is None else it for it in metrics[name]] for name in FAIRNESS])
    return values[:, 0], values[:, 1]


def _none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
