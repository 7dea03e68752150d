"""The docstrings below the fields of models.

Pydantic can read them itself (`use_attribute_docstrings`), but does so when a model is defined, from the source of one class after another:
a sixth of the time that `kd-ray plan` takes. Here a module is read when its docstrings are first asked for.
"""

import ast
import functools
import inspect
import sys
from collections.abc import Mapping

from pydantic import BaseModel


def field_docstrings(model: type[BaseModel]) -> Mapping[str, str]:
    """The docstring of each field that has one. A field that a subclass defines anew has only the docstring that stands there."""
    found: dict[str, str | None] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _of_module(base.__module__).get(base.__name__, {})
    return {name: text for name in model.model_fields if (text := found.get(name)) is not None}


@functools.cache
def _of_module(name: str) -> Mapping[str, Mapping[str, str | None]]:
    """The fields of each class of a module, with their docstrings."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: _of_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for line, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            found[line.target.id] = inspect.cleandoc(text) if isinstance(text, str) else None
    return found
