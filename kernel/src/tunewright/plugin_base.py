"""Base of all plugins and of their options."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from tunewright.errors import Problem

if TYPE_CHECKING:
    from tunewright.check import Resolved


class PluginOptions(BaseModel):
    """Options of a plugin: frozen, every field described, unknown keys refused.

    A field's description is `Field(description=…)` or the docstring below it. `json_schema_extra`
    may hold, for forms, `{"tier": "basic" | "advanced"}` (shown first, or last),
    `{"widget": "path" | "secret"}` and `{"unit": "tokens"}`; and `{"may_change": True}` if a
    resumed run may change the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Plugin:
    """A plugin is a class with Options and hook implementations.

    Its entry point gives it a name:
    `[project.entry-points."tunewright.adapter"] lora = "tunewright_lora:Lora"`.
    """

    class Options(PluginOptions):
        pass

    #: conformance tests that this plugin does not pass: test name → reason, a full sentence
    deviations: ClassVar[dict[str, str]] = {}
    #: files and folders that it writes in the run folder; --overwrite removes them
    artifacts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Any, name: str = "") -> None:
        self.options = options
        self.name = name
        #: its section in the recipe, such as ("adapter",) or ("stages", 1); set by the kernel
        self.at: tuple[str | int, ...] = ()

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Problems of the combination in which the plugin stands, found before anything loads.

        A Problem's path is absolute; `(*self.at, "field")` is a field of the plugin's own section.
        Imports neither torch nor transformers. Looks at data only where `recipe.looked`. Default:
        none.
        """
        return ()

    def close(self) -> None:
        """Release what the plugin holds, when the run ends."""
