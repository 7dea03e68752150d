"""The reference pages: Markdown made from the models of a sweep file, the schema of the tables, the commands and the public names."""

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import click

import kd_ray
from kd_ray.cli.commands import VERBS
from kd_ray.results.schema import KEYS, QUERIED
from kd_ray.results.sql_views import SQL_VIEWS
from kd_ray.sweep.config import Sweep
from kd_ray.sweep.distillation import OBJECTIVES

SCHEMA = Sweep.model_json_schema()
_OBJECTIVES = {model.__name__ for model in OBJECTIVES.values()}


def sweep_file() -> str:
    """Every model that a sweep file is made of, under the path at which it stands."""
    found = [f"## The file\n\n{_fields(SCHEMA)}"]
    found += [f"## {_title(path, model)}\n\n{_prose(model)}\n\n{_fields(model)}" for path, model in _models()]
    return "\n\n".join(found)


def objectives() -> str:
    """The settings of every objective, and what it does."""
    found = []
    for name, model in OBJECTIVES.items():
        title = "Your own" if name == "imported" else f"`{name}`"
        facts = [f"terms: {', '.join(f'`{term}`' for term in model.TERMS)}"] if model.TERMS else []
        facts += ["no teacher"] * (not model.NEEDS_TEACHER) + ["in the style of its source"] * model.IS_STYLE
        fields = _fields(model.model_json_schema())
        found.append(
            f"## {title}\n\n{_prose(model.model_json_schema())}\n\n{'; '.join(facts).capitalize()}.\n\n{fields}"
        )
    return "\n\n".join(found)


def tables() -> str:
    """Every column of every table, and what SQL offers besides. The keys stand once."""
    keys = _table(("column", "type", "unit", "meaning"), ((it.name, it.type, it.unit, it.meaning) for it in KEYS))
    found = [
        f"## The keys\n\nThe first columns of `trials` and of all tables with one row or more per trial.\n\n{keys}"
    ]
    for table in QUERIED.values():
        begins = table.columns[: len(KEYS)] == KEYS
        rows = (
            (it.name, it.type, it.unit, it.range, it.better or "", it.meaning)
            for it in table.columns[len(KEYS) if begins else 0 :]
        )
        more = "The keys, and:\n\n" if begins else ""
        columns = _table(("column", "type", "unit", "range", "better", "meaning"), rows)
        found.append(f"## `{table.name}`\n\nOne row per {_cell(table.one_row_per)}.\n\n{more}{columns}")
    views = _table(("in SQL", "meaning"), ((f"`{view.signature}`", view.meaning) for view in SQL_VIEWS.values()))
    return "\n\n".join([*found, f"## Views and functions\n\n{views}"])


def commands() -> str:
    """What `--help` says of every command."""
    found = []
    for group, verbs in VERBS.items():
        found.append(f"## {group}")
        for verb in verbs:
            members = verb.commands.items() if isinstance(verb, click.Group) else [("", verb)]
            found += [_command(f"kd-ray {verb.name} {name}".strip(), command) for name, command in members]
    return "\n\n".join(found)


def python() -> str:
    """The public names, which mkdocstrings describes."""
    names = [name for name in kd_ray.__all__ if name not in ("__version__", "figures", "results")]
    found = [f"::: kd_ray.{name}" for name in sorted(names, key=lambda name: (name == "Results", name))]
    found += ["::: kd_ray.results", "::: kd_ray.analysis.report.figures"]
    # Classes only: the others are helpers of messages.
    return "\n\n".join([*found, "::: kd_ray.errors\n    options:\n      filters: ['^[A-Z]']"])


def _command(title: str, command: click.Command) -> str:
    context = click.Context(command, info_name=title)
    options = [it.get_help_record(context) for it in command.params if isinstance(it, click.Option)]
    rows = ((f"`{record[0]}`", record[1]) for record in options if record)
    example = getattr(command, "example", "")
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    return "\n\n".join(
        [
            f"### `{title}`",
            _inline(command.help or ""),
            f"```text\n{usage}\n```",
            _table(("option", "meaning"), rows),
            f"For example:\n\n```bash\n{example}\n```" if example else "",
        ]
    )


def _models() -> Iterator[tuple[str, dict[str, Any]]]:
    """All models of a sweep file but objectives, each at the shortest path where it stands."""
    seen = _OBJECTIVES | {"JsonValue"}
    waiting = deque([("", SCHEMA)])
    while waiting:
        path, schema = waiting.popleft()
        for name, field in schema.get("properties", {}).items():
            for model in _references(field):
                if model not in seen:
                    seen.add(model)
                    waiting.append((f"{path}.{name}".strip("."), SCHEMA["$defs"][model]))
                    yield waiting[-1]


def _references(schema: Any) -> Iterator[str]:
    """Names of the models that a schema of a field refers to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for key, value in schema.items():
            if key != "discriminator":
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _title(path: str, model: dict[str, Any]) -> str:
    name = model["properties"].get("name", {}).get("const")
    more = f": `{name}`" if name else " with `weights`" if model["title"] == "PretrainedTeacher" else ""
    return f"`{path}`{more}"


def _fields(model: dict[str, Any]) -> str:
    required = set(model.get("required", ()))
    rows = (
        (f"`{name}`", _type(field), "required" if name in required else _default(field), _meaning(field))
        for name, field in model["properties"].items()
    )
    return _table(("key", "type", "default", "meaning"), rows)


def _meaning(field: dict[str, Any]) -> str:
    return str(field.get("description", "chooses these settings" if "const" in field else ""))


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    if isinstance(value, dict):
        return "its own defaults"
    return "–" if value is None else f"`{json.dumps(value)}`"


def _type(field: dict[str, Any]) -> str:
    """The type of a field in words: `flip`, number > 0, list of texts."""
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_type(it) for it in field[key] if it.get("type") != "null"))
    if "$ref" in field:
        return "any value" if field["$ref"].endswith("JsonValue") else "mapping"
    return _simple_type(field)


def _simple_type(field: dict[str, Any]) -> str:
    kind = field.get("type")
    if kind == "array":
        inner = field.get("items") or {}
        return f"list of {_type(inner)}" if inner else "list"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = " and ".join(f"{sign} {field[key]:,}" for key, sign in signs.items() if key in field)
    names = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true` or `false`",
        "object": "mapping",
    }
    return f"{names.get(str(kind), 'any value')} {bounds}".strip()


def _prose(model: dict[str, Any]) -> str:
    return _inline(model.get("description", ""))


def _inline(text: str) -> str:
    """Prose of a docstring as Markdown: paragraphs, without markup that nobody meant."""
    return "\n\n".join(_cell(paragraph) for paragraph in text.split("\n\n"))


def _cell(text: Any) -> str:
    """A text for a cell of a table, on one line. Outside of code, `*`, `_`, `<` and `[` mean themselves."""
    parts = " ".join(str(text).split()).split("`")
    for number in range(0, len(parts), 2):
        for character in "\\*_<[":
            parts[number] = parts[number].replace(character, "\\" + character if character != "<" else "&lt;")
    return "`".join(parts).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(_cell(value) for value in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
