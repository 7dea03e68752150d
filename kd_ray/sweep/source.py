"""The text of a sweep file: plain values, the line of each, and `--set` overrides.

YAML 1.2 without tags: nothing in a file can make an object or run code. Size, nesting and what aliases expand to are checked before
anything is made of the text.
"""

import io
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from kd_ray.errors import SweepError
from kd_ray.shown import control_character

MOST_CHARACTERS = 2**20
"""Longest text that is read. A grid with 100,000 seeds has 700,000 characters."""
MOST_VALUES = 200_000
"""Most values of a text, each alias counted as all that it stands for."""
MOST_LEVELS = 64
"""Deepest nesting."""

Location = tuple[str | int, ...]
"""Keys and indices that lead to a field."""


@dataclass(kw_only=True)
class SourceLines:
    """The line of each field, for messages."""

    name: str
    lines: dict[Location, int] = field(default_factory=dict)
    overrides: dict[Location, str] = field(default_factory=dict)

    def replaced(self, location: Location, by: str) -> None:
        """Note that an override gave a new value; the lines of the old value and of the fields below it are forgotten."""
        for known in (self.lines, self.overrides):
            for below in [place for place in known if place[: len(location)] == location]:
                del known[below]
        self.overrides[location] = by

    def where(self, location: Location) -> str:
        """`file:line`, or the `--set` that put the value there; the nearest enclosing field that is known."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.overrides:
                return self.overrides[location[:length]]
            if location[:length] in self.lines:
                return f"{self.name}:{self.lines[location[:length]]}"
        return self.name

    def error(self, location: Location, message: str) -> str:
        """One line of an error message."""
        path = dotted(location)
        return f"{self.where(location)}: {path}: {message}" if path else f"{self.where(location)}: {message}"


def read_yaml(text: str, name: str) -> tuple[dict[str, Any], SourceLines]:
    """The mapping that a YAML text holds, and where its fields stand.

    Raises:
        SweepError: the text is not YAML, or not a mapping.
    """
    source = SourceLines(name=name)
    try:
        document = _load(text)
        if not isinstance(document, CommentedMap):
            raise SweepError(f"{name}: a sweep file is a mapping of fields, got {_kind(document)}")
        return _plain(document, (), source.lines), source
    except (YAMLError, ValueError, RecursionError) as error:
        raise SweepError(f"{name}{_yaml_problem(error)}") from error


def _load(text: str) -> Any:
    """The document as ruamel gives it; raises ValueError for a text that would become too large, with its line."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]
    for event in YAML(typ="rt", pure=True).parse(io.StringIO(text)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case SequenceStartEvent() | MappingStartEvent():
                open_.append((event.anchor, 1))
                if len(open_) > MOST_LEVELS:
                    raise ValueError(f"line {line}: more than {MOST_LEVELS} levels of lists and mappings")
                continue
            case SequenceEndEvent() | MappingEndEvent():
                anchor, size = open_.pop()
            case ScalarEvent():
                anchor, size = event.anchor, 1
            case AliasEvent():
                if event.anchor not in sizes:
                    raise ValueError(f"line {line}: the alias *{event.anchor} stands for itself, or for nothing")
                anchor, size = None, sizes[event.anchor]
            case _:
                continue
        if anchor:
            sizes[anchor] = size
        outer, total = open_[-1]
        open_[-1] = (outer, total + size)
        if total + size > MOST_VALUES:
            raise ValueError(f"line {line}: more than {MOST_VALUES:,} values, with what aliases stand for")
    return YAML(typ="rt").load(text)


def _kind(document: Any) -> str:
    return "nothing: the file is empty" if document is None else type(document).__name__


def _yaml_problem(error: Exception) -> str:
    """`:10: not valid YAML: …`, in one line and without the parser's advice to programmers."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    if problem.startswith("mapping values are not allowed"):
        problem += "; look at the indentation here and in the line before"
    return (f":{mark.line + 1}" if mark else "") + f": not valid YAML: {problem}"


def _plain(node: Any, location: Location, lines: dict[Location, int]) -> Any:
    """Plain dicts, lists and scalars of a YAML node, noting the line of each."""
    if isinstance(node, CommentedMap | CommentedSeq) and node.tag.value is not None:
        raise ValueError(f"the tag {node.tag.value} has no meaning in a sweep file")
    if isinstance(node, CommentedMap):
        for key in node:
            # Keys that a merge (`<<`) brings have no line of their own.
            if key in (node.lc.data or {}):
                lines[(*location, str(key))] = node.lc.key(key)[0] + 1
        for key in node:
            _plain(key if isinstance(key, str) else None, (*location, str(key)), lines)
        return {str(key): _plain(value, (*location, str(key)), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for i in range(len(node)):
            lines[(*location, i)] = node.lc.item(i)[0] + 1
        return [_plain(value, (*location, i), lines) for i, value in enumerate(node)]
    if isinstance(node, str) and (character := control_character(node)) is not None:
        line = f"line {lines[location]}: " if location in lines else ""
        raise ValueError(f"{line}{node!r} holds the control character {character}")
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node if node is None else str(node)


def apply_override(raw: dict[str, Any], override: str, source: SourceLines) -> None:
    """Put the value of one `KEY=VALUE` into `raw`; `null` removes the key.

    Raises:
        SweepError: the text has another form, its value is not YAML, or the key leads through something that is no mapping.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise SweepError(f"--set {override}: expected KEY=VALUE, as in --set training.epochs=5")
    try:
        value = _plain(_load(text), (), {})
    except (YAMLError, ValueError, RecursionError) as error:
        raise SweepError(f"--set {override}: the value is not valid YAML: {error}") from error
    if key.endswith("version"):
        value = _fingerprints(value, text)
    # Everything after `grid.` is one axis, whose name may hold dots itself.
    parts = ("grid", key.removeprefix("grid.")) if key.startswith("grid.") else tuple(key.split("."))
    target = raw
    for part in parts[:-1]:
        if value is None and part not in target:
            return
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise SweepError(f"--set {override}: {part} is not a mapping, it holds {target!r}")
    if value is None:
        target.pop(parts[-1], None)
    else:
        target[parts[-1]] = value
    source.replaced(parts, f"--set {override}")


def _fingerprints(value: Any, text: str) -> Any:
    """The value of a version, or of an axis of versions: a fingerprint such as 12345678901234e5 is text, and to YAML a number."""
    if isinstance(value, list):
        items = text.strip().removeprefix("[").removesuffix("]").split(",")
        return (
            [_fingerprints(each, item) for each, item in zip(value, items, strict=True)] if _is_flat(value) else value
        )
    return text.strip() if isinstance(value, int | float) else value


def _is_flat(values: list[Any]) -> bool:
    """Whether the values of a list are fingerprints, so that commas stand between them only."""
    return all(isinstance(value, int | float) or (isinstance(value, str) and "," not in value) for value in values)


def dotted(location: Location) -> str:
    """`training.optimizer.lr`, `grid.seed[0]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def dump_yaml(raw: dict[str, Any]) -> str:
    """The mapping as YAML text, in its order."""
    buffer = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed as None by its default
    yaml.dump(raw, buffer)
    return buffer.getvalue()
