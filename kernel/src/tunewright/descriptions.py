"""Descriptions of options, for help, schemas and the generated reference."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic import BaseModel


def described(model: type[BaseModel]) -> dict[str, str]:
    """Descriptions of a model's fields: `Field(description=…)`, else the docstring below the field.

    Used by help and schemas only: pydantic's `use_attribute_docstrings` reads sources at each
    import, which takes 60 ms. The model is not changed.
    """
    found = {}
    for owner in reversed([base for base in model.__mro__ if hasattr(base, "model_fields")]):
        for name, text in _docstrings(owner):
            if name in model.model_fields:
                found[name] = text
    own = {name: field.description for name, field in model.model_fields.items()}
    return found | {name: text for name, text in own.items() if text}


def _docstrings(owner: type[Any]) -> Iterator[tuple[str, str]]:
    if owner is BaseModel:
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    except (OSError, TypeError):  # class without a source file
        return
    for field, text in pairwise(tree.body if isinstance(tree, ast.ClassDef) else []):
        match field, text:
            case ast.AnnAssign(target=target), ast.Expr(value=ast.Constant(value=str(written))):
                yield ast.unparse(target), inspect.cleandoc(written)
