"""From values to HTML: the templates, with everything escaped, and how numbers, times and links are written."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup

from kd_ray.shown import cleaned, rounded

STATIC = {
    "site.css": "text/css",
    "site.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""The files that pages ask for, and their types; no other file is served."""
FIRST = ("base", "macros", "parts", "sweeps")
"""Templates of the first page."""


class Templates:
    """The templates of the site, for one root path."""

    def __init__(self, root_path: str) -> None:
        self._root = root_path
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("kd_ray.serve", "templates"),
            autoescape=True,
            # An upgrade of the package does not change the templates of a server that runs.
            auto_reload=False,
            finalize=_shown,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "url": self.url,
            "static": self.static,
            "duration": duration,
            "ago": ago,
            "moment": moment,
            "count": count,
            "rounded": rounded,
            "pairs": lambda options: [(it, it) for it in options],
        }

    def compile(self, names: Sequence[str] = FIRST) -> None:
        """Have templates ready: those of the first page take a twentieth of a second, all together a fifth."""
        for name in names:
            self._environment.get_template(f"{name}.html.j2")

    def names(self) -> list[str]:
        """All templates."""
        return [name.removesuffix(".html.j2") for name in self._environment.list_templates()]

    def render(self, name: str, **values: Any) -> str:
        """A page."""
        return self._environment.get_template(f"{name}.html.j2").render(**values)

    def part(self, name: str, part: str, values: Mapping[str, Any]) -> str:
        """One macro of a template with these values."""
        module = self._environment.get_template(f"{name}.html.j2").make_module(dict(values))
        return str(getattr(module, part)(values))

    def url(self, path: str, query: Mapping[str, Any] | None = None, /, **changes: Any) -> str:
        """A link within the site; `changes` to a query, in which nothing empty is kept."""
        chosen = {**(query or {}), **changes}
        pairs = [(name, value) for name, value in chosen.items() if value not in ("", None, False)]
        words = urlencode([(name, "1" if value is True else value) for name, value in pairs], doseq=True)
        return f"{self._root}{path}{'?' if words else ''}{words}"

    def static(self, name: str) -> str:
        """The URL of a file, which is another one whenever its content is."""
        return f"{self._root}/static/{name}?v={self._digests[name]}"

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {name: hashlib.sha256(static_file(name)).hexdigest()[:12] for name in STATIC}


def _shown(value: Any) -> Any:
    """A value as a page shows it, before it is escaped: no character that turns the text after it around, or that nobody sees."""
    return cleaned(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def static_file(name: str) -> bytes:
    """The content of a file of the package."""
    return resources.files("kd_ray.serve").joinpath("static", name).read_bytes()


def event(name: str, values: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(values, separators=(',', ':'))}\n\n".encode()


def duration(seconds: float | None) -> str:
    """`2 h 05 min`, `40 s`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def ago(at: datetime | None) -> str:
    """`3 min ago`."""
    if at is None:
        return "–"
    return f"{duration(max(0.0, (datetime.now(UTC) - at).total_seconds()))} ago"


def moment(at: datetime | None) -> str:
    """`2026-11-27 10:25 UTC`."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def count(number: int, noun: str) -> str:
    """`1 trial`, `1,200 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
