"""An objective from a package of yours, found among the entry points that installed distributions declare for it.

A sweep file or a store can name any path, so a path alone must not make anything run: only what a distribution offers under the entry-point
group `kd_ray.objectives` is imported, and only on workers. The function is called as
`function(student_BC, teacher_BC, labels_B, parameters, context)` and returns its terms by name, scalars that carry gradients; their sum is
the loss.
"""

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any

from torch import Tensor, nn

from kd_ray import offered
from kd_ray.distill.objectives.loss import Background, Context, Loss
from kd_ray.errors import TrialError
from kd_ray.sweep.distillation import ImportedObjective

GROUP = "kd_ray.objectives"

Function = Callable[[Tensor, Tensor, Tensor, Mapping[str, Any], Context], Mapping[str, Tensor]]


@functools.cache
def load_function(path: str, version: str | None) -> Function:
    """The function that an installed distribution offers under this path.

    Raises:
        TrialError: none does, or its distribution has another version.
    """
    entry = _entry(path)
    installed = entry.dist.version if entry.dist is not None else None
    if version is not None and version != installed:
        raise TrialError(
            f"objective {path}: the trial asks for version {version}, and this worker has {installed} installed"
        )
    try:
        function: Function = entry.load()
    except (ImportError, AttributeError) as error:
        raise TrialError(f"objective {path} cannot be imported: {error}") from error
    return function


def with_imported_function(background: Background, settings: ImportedObjective, teacher: nn.Module) -> Background:
    """The background as it is; an objective that cannot be imported fails here, before the first batch.

    Raises:
        TrialError: no installed distribution offers the function, or its distribution has another version.
    """
    del teacher
    load_function(settings.objective, settings.version)
    return background


def distribution_of(path: str | None) -> dict[str, str]:
    """Name and version of the distribution that offers an imported objective; empty without a path, for an objective of kd_ray.

    Raises:
        TrialError: none does.
    """
    if path is None:
        return {}
    return offered.distribution_of(_entry(path))


def _entry(path: str) -> EntryPoint:
    try:
        return offered.find(GROUP, path)
    except LookupError as error:
        raise TrialError(f"no distribution installed on this worker offers the objective {error.args[0]}") from error


def imported_loss(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, settings: ImportedObjective, context: Context
) -> Loss:
    """The sum of the terms that the function returns.

    Raises:
        TrialError: it returns other terms than the sweep names.
    """
    function = load_function(settings.objective, settings.version)
    returned = dict(function(student_BC, teacher_BC, labels_B, settings.parameters, context))
    if set(returned) != set(settings.terms):
        raise TrialError(
            f"objective {settings.objective} returned the terms {sorted(returned)}, and distillation.terms names {sorted(settings.terms)}"
        )
    terms = {name: returned[name] for name in settings.terms}
    wrong = [name for name, term in terms.items() if not isinstance(term, Tensor) or term.ndim != 0]
    if wrong:
        raise TrialError(f"objective {settings.objective}: the terms {wrong} are not scalar tensors")
    total = functools.reduce(lambda a, b: a + b, terms.values())
    return Loss(total=total, terms=terms)
