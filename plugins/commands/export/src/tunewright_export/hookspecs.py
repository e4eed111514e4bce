"""The hook of the kind that `tunewright export` calls: exporter."""

from typing import TYPE_CHECKING

from tunewright.hookspecs import hookspec
from tunewright.types import RunContext

if TYPE_CHECKING:
    from tunewright import types


@hookspec(firstresult=True)
def export_model(run: RunContext, request: "types.ExportRequest") -> str:
    """Write a trained model in another format. Kind: exporter.

    When: once, by `tunewright export`. The plugin's `reload` and the comparison with the run
    follow; the folder appears under its name only if both succeed.

    request.folder: empty; the plugin writes files of its format into it, and nothing elsewhere.

    Returns one line for the user: how other programs load the folder.

    Raises RecipeError if the model has no such form, RunError if it cannot be written.
    """
    raise NotImplementedError
