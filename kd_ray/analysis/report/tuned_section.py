"""What a report says about a search for settings: split, arm, number of candidates, and what the choice costs each arm."""

import json

from kd_ray.analysis.report.page import Section
from kd_ray.analysis.report.table import ReportColumn, ReportTable
from kd_ray.metrics.catalogue import METRICS
from kd_ray.sweep.tuning_settings import Tuned
from kd_ray.tuning.outcome import searched


def tuned_section(tuned: Tuned) -> Section:
    """The chapter about the settings of the sweep."""
    settings = ", ".join(f"{path} = {json.dumps(value)}" for path, value in tuned.settings.items())
    metric = METRICS.get(tuned.metric.split(" ", maxsplit=1)[0])
    scale, unit = (metric.scale, "points") if metric and metric.unit == "rate" else (1.0, "")
    costs = ReportTable(
        name="tuned-regret",
        title="What one recipe for all costs each arm",
        caption="By how much the chosen candidate is worse than the candidate that is best for this arm alone, on the validation split. "
        "An arm with a large value has a recipe that suits others better.",
        columns=(ReportColumn(name="arm"), ReportColumn(name="regret", unit=unit, digits=2)),
        rows=tuple((arm, scale * value) for arm, value in tuned.regret.items()),
    )
    return Section(
        name="tuned",
        title="How the settings were found",
        explanation=f"By `kd-ray tune`, on the {tuned.split} split; no sample of the test split was used.",
        paragraphs=(
            f"Tuned for arm: {tuned.arm}. Metric: {tuned.metric}. {searched(tuned)}. Searcher: {tuned.searcher}.",
            f"Chosen: {settings}.",
        ),
        tables=(costs,),
    )
