"""kd_ray: distributed hyperparameter sweeps for knowledge distillation.

The verbs of the command line, for notebooks:

    import kd_ray

    data = kd_ray.dataset("digits", images=…, labels=…, features=…)   # the section `dataset` of a sweep, from arrays or frames
    sweep = kd_ray.load_sweep("sweeps/trifeature-quick.yaml")     # or a mapping with the same fields
    results = kd_ray.open_store("./kd_ray_store")
    kd_ray.plan(sweep, results)
    kd_ray.launch(sweep, results)
    kd_ray.compare("trifeature-quick", results)
    kd_ray.report("trifeature-quick", results).page
    kd_ray.figures.overview("trifeature-quick", results)
    results.frame("trials")                                       # pandas
    results.metric_frame(trial_id, "color")                       # fairlearn
    kd_ray.trained(trial_id, results).model                       # a torch module
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_ray import results
    from kd_ray.analysis.report import figures
    from kd_ray.api import compare, launch, open_store, plan, report, trained
    from kd_ray.data.written import dataset
    from kd_ray.results.query import Results
    from kd_ray.sweep.load import load_sweep

    __version__: str

__all__ = [
    "Results",
    "__version__",
    "compare",
    "dataset",
    "figures",
    "launch",
    "load_sweep",
    "open_store",
    "plan",
    "report",
    "results",
    "trained",
]

_MODULES = {"figures": "kd_ray.analysis.report.figures", "results": "kd_ray.results"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import kd_ray` costs nothing."""
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name == "load_sweep":
        from kd_ray.sweep.load import load_sweep

        return load_sweep
    if name == "dataset":
        from kd_ray.data.written import dataset

        return dataset
    if name == "__version__":
        from importlib.metadata import version

        return version("kd_ray")
    if name in __all__:
        from kd_ray import api

        return getattr(api, name)
    raise AttributeError(f"module 'kd_ray' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return __all__
