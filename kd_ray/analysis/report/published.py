"""What the paper prints for a sweep like this one: its values, where they were read, and nothing where they are not known.

A sweep is recognised by its data set, target and models; values of a sensitive feature only where the sweep compares that feature.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.study import Study


@dataclass(frozen=True, kw_only=True)
class PublishedValue:
    """One value of the paper."""

    metric: str
    feature: str | None
    """Sensitive feature, as the sweep names it."""
    role: str
    temperature: float | None
    mean: float
    """Percent, a count of classes (`sc`, `tc`), or individual fairness as it is."""
    sd: float | None
    where: str
    how: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the paper prints for one of its experiments."""

    name: str
    paper: str
    seeds: int | None
    unknown: str
    """Settings of the paper that are not known; a sweep's own are substitutes."""
    statement: str
    values: tuple[PublishedValue, ...]

    @property
    def how_read(self) -> str:
        """Where each of the values was read, and how sure that is."""
        ways = dict.fromkeys((value.where, value.how) for value in self.values)
        return " ".join(f"{where}: {how}." for where, how in ways)

    def value(self, metric: str, condition: Condition, feature: str | None = None) -> PublishedValue | None:
        """The value for a condition."""
        for value in self.values:
            if (value.metric, value.feature, value.role) == (metric, feature, condition.role) and (
                condition.role != "distilled" or value.temperature == condition.temperature
            ):
                return value
        return None


def find_published(study: Study) -> Published | None:
    """The paper's experiment with the data set, target and models of a sweep."""
    roles = {
        role: {_plain(c.axes["model"]) for c in study.of_role(role)} for role in ("teacher", "scratch", "distilled")
    }
    teachers = roles["teacher"] | {_plain(c.axes["teacher"]) for c in study.distilled}
    students = roles["scratch"] | roles["distilled"]
    content = _content()
    for entry in content["studies"]:
        if (
            _plain(entry["dataset"]) == _plain(study.dataset)
            and _plain(entry.get("target", study.target)) == _plain(study.target)
            and teachers == {_plain(entry["teacher"])}
            and students == {_plain(entry["student"])}
        ):
            return _published(entry, content, [fairness.feature for fairness in study.fairness])
    return None


def _published(entry: Mapping[str, Any], content: Mapping[str, Any], features: Sequence[str]) -> Published:
    names = {_plain(feature): feature for feature in features}
    values = []
    for row in entry["rows"]:
        if "feature" in row and _plain(row["feature"]) not in names:
            continue
        source = content["sources"][row["source"]]
        value = PublishedValue(
            metric=row["metric"],
            feature=names[_plain(row["feature"])] if "feature" in row else None,
            role=row["role"],
            temperature=row.get("temperature"),
            mean=row["mean"],
            sd=row.get("sd"),
            where=source["where"],
            how=f"{source['how']}; confidence {source['confidence']}",
            note=row.get("note", ""),
        )
        values.append(value)
    return Published(
        name=entry["name"],
        paper=content["paper"],
        seeds=entry["seeds"],
        unknown=content["unknown"],
        statement=entry.get("statement", ""),
        values=tuple(values),
    )


def _plain(name: object) -> str:
    """A name without case and punctuation: `CIFAR-10` and `cifar10` are one."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower()).replace("colour", "color")


@cache
def _content() -> dict[str, Any]:
    text = resources.files("kd_ray.analysis.report").joinpath("published.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
