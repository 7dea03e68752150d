"""kd_ray: distributed hyperparameter sweeps for knowledge distillation.

The verbs of the command line, for notebooks:

    import kd_ray

    sweep = kd_ray.load_sweep("sweeps/trifeature-quick.yaml")
    results = kd_ray.open_store("./kd_ray_store")
    print(kd_ray.plan(sweep, results).counts())
    kd_ray.launch(sweep, results)
    kd_ray.compare("trifeature-quick", results).verdict.established
    kd_ray.report("trifeature-quick", results).page
    results.table("fairness_metrics").to_pandas()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_ray.api import compare, launch, open_store, plan, report
    from kd_ray.results.query import Results
    from kd_ray.sweep.load import load_sweep

__all__ = ["Results", "compare", "launch", "load_sweep", "open_store", "plan", "report"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import kd_ray` costs nothing."""
    if name == "load_sweep":
        from kd_ray.sweep.load import load_sweep

        return load_sweep
    if name in __all__:
        from kd_ray import api

        return getattr(api, name)
    raise AttributeError(f"module 'kd_ray' has no attribute {name!r}")
