"""What every plugin derives from."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from tunewright.types import Head, ModelRole, Rows


class PluginOptions(BaseModel):
    """Options of a plugin: frozen, every field described, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Plugin:
    """A plugin is a class with Options and hook implementations.

    Its entry point gives it a name: `[project.entry-points."tunewright.adapter"] lora = "tunewright_lora:Lora"`.
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

    rows: ClassVar[Rows]  #: the sort of rows it trains on
    head: ClassVar[Head] = "causal_lm"  #: the head of the policy
    models: ClassVar[tuple[ModelRole, ...]] = ("policy",)  #: the models it holds


class Format(Plugin):
    """A plugin of kind format, with what the dataset must know before it reads."""

    rows: ClassVar[tuple[Rows, ...]]  #: the sorts of rows it can give

    @staticmethod
    def matches(record: Any) -> bool:
        """Whether a source's first record looks like this format. False: it is used only where it is named."""
        return False
