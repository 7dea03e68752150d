"""What came out of trials: the store, records, tables, queries and frames.

    kd_ray.results.frame("trials", sweep="trifeature-quick", store="./kd_ray_store")
    kd_ray.results.metric_frame(trial_id, ["color", "texture"], store="./kd_ray_store").by_group

`store` is a path, a URL, or what `kd_ray.open_store` returns; without it `./kd_ray_store`.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from fairlearn.metrics import MetricFrame

    from kd_ray.results.query import Results

__all__ = ["frame", "metric_frame", "predictions"]

DEFAULT_STORE = "./kd_ray_store"


def frame(
    name: str, *, sweep: str | None = None, store: "str | os.PathLike[str] | Results" = DEFAULT_STORE
) -> "pd.DataFrame":
    """`Results.frame` of a store."""
    return _results(store).frame(name, sweep=sweep)


def predictions(trial_id: str, *, store: "str | os.PathLike[str] | Results" = DEFAULT_STORE) -> "pd.DataFrame":
    """`Results.predictions` of a store."""
    return _results(store).predictions(trial_id)


def metric_frame(
    trial_id: str,
    feature: str | list[str],
    *,
    store: "str | os.PathLike[str] | Results" = DEFAULT_STORE,
    **options: Any,
) -> "MetricFrame":
    """`Results.metric_frame` of a store."""
    return _results(store).metric_frame(trial_id, feature, **options)


def _results(store: "str | os.PathLike[str] | Results") -> "Results":
    from kd_ray.results.query import Results
    from kd_ray.results.store import open_store

    return store if isinstance(store, Results) else Results(open_store(store))
