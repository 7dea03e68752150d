"""The catalogue of metrics names each metric once and agrees with the tables."""

import pytest

from kd_ray.metrics.catalogue import METRICS, Metric
from kd_ray.results.schema import TABLES

_TABLE_OF = {"trial": "trials", "class": "class_metrics", "groups": "fairness_metrics"}
_NOT_STORED = {"individual_fairness_calibrated"}


def test_short_names_are_distinct() -> None:
    assert len({metric.short for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_metric_has_the_name_of_its_key_and_a_range(metric: Metric) -> None:
    assert METRICS[metric.name] is metric
    assert metric.low < metric.high
    assert metric.unit != "rate" or (metric.low, metric.high, metric.scale) == (0.0, 1.0, 100.0)


@pytest.mark.parametrize(
    "metric",
    [metric for metric in METRICS.values() if metric.of in _TABLE_OF and metric.name not in _NOT_STORED],
    ids=lambda metric: metric.name,
)
def test_a_stored_metric_is_a_column_of_its_table_with_the_same_meaning(metric: Metric) -> None:
    columns = {column.name: column for column in TABLES[_TABLE_OF[metric.of]].columns}
    assert columns[metric.name].meaning == metric.meaning
    assert columns[metric.name].unit == {"rate": "1", "nat": "nat", "ratio": columns[metric.name].unit}[metric.unit]
