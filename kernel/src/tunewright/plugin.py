"""What every plugin derives from."""

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from tunewright.types import Head, ModelRole, RowKind


class PluginOptions(BaseModel):
    """Options of a plugin: frozen, every field described, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def describe(model: type[BaseModel]) -> type[BaseModel]:
    """Make the docstring under each field its description, and give the model back.

    Only help and schemas ask: pydantic's own `use_attribute_docstrings` reads sources at each
    import, for 60 ms.
    """
    for owner in reversed(
        [base for base in model.__mro__ if "model_fields" in dir(base) and base is not BaseModel]
    ):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except OSError:  # made without a file
            continue
        for field, text in pairwise(body.body if isinstance(body, ast.ClassDef) else []):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                name = ast.unparse(field.target)
                if name in model.model_fields and isinstance(text.value.value, str):
                    model.model_fields[name].description = inspect.cleandoc(text.value.value)
    model.model_rebuild(force=True)
    return model


class Plugin:
    """A plugin is a class with Options and hook implementations.

    Its entry point gives it a name: `[project.entry-points."tunewright.adapter"] lora =
    "tunewright_lora:Lora"`.
    """

    class Options(PluginOptions):
        pass

    #: conformance tests that this plugin does not pass: test name → reason, in a full sentence
    deviations: ClassVar[dict[str, str]] = {}

    def __init__(self, options: Any, name: str = "") -> None:
        self.options = options
        self.name = name


class Stage(Plugin):
    """A plugin of kind stage, with what it needs from the others."""

    rows: ClassVar[RowKind]  #: the sort of rows it trains on
    head: ClassVar[Head] = "causal_lm"  #: the head of the policy
    models: ClassVar[tuple[ModelRole, ...]] = ("policy",)  #: the models it holds


class Format(Plugin):
    """A plugin of kind format, with what the dataset must know before it reads."""

    rows: ClassVar[tuple[RowKind, ...]]  #: the sorts of rows it can give

    @staticmethod
    def matches(record: Any) -> bool:
        """Whether a source's first record looks like this format. False: it is used only where it
        is named."""
        return False
