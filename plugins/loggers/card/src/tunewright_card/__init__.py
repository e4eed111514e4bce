"""Model card of a run (README.md): method, metrics, recipe and versions."""

from typing import Any

from tunewright import Logger, events, hookimpl
from tunewright.types import RunContext
from tunewright.words import counted


class Card(Logger):
    """Writes the model card when the run completes. All of its content comes from events."""

    artifacts = ("README.md",)

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._started: events.RunStarted | None = None
        self._rows: dict[str, int] = {}
        self._stages: list[events.StageFinished] = []
        self._warnings: dict[str, None] = {}  # each once, in order

    @hookimpl
    def report(self, run: RunContext, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            self._started = event
        elif isinstance(event, events.StageStarted):
            self._rows[event.stage] = event.rows
        elif isinstance(event, events.StageFinished):
            self._stages.append(event)
        elif isinstance(event, events.Notice) and event.level == "warning":
            self._warnings[" ".join(event.message.split())] = None
        elif (
            isinstance(event, events.RunFinished) and event.status == "completed" and self._started
        ):
            (run.folder / "README.md").write_text(self._text(self._started), encoding="utf-8")

    def _text(self, started: events.RunStarted) -> str:
        import yaml

        recipe, versions = started.recipe, started.versions
        lines = [
            f"# {started.folder}",
            "",
            f"`{recipe['model']}`, trained with Tunewright {versions['tunewright']}.",
            "",
        ]
        for stage in self._stages:
            numbers = ", ".join(f"{key} {value:.4g}" for key, value in stage.metrics.items())
            lines.append(
                f"- {stage.stage}: {counted(stage.steps, 'step')} over "
                f"{counted(self._rows.get(stage.stage, 0), 'row')}. {numbers}"
            )
        if self._warnings:
            lines += ["", "## Warnings", "", *(f"- {each}" for each in self._warnings)]
        if "plot" in [logger["name"] for logger in recipe["loggers"]]:
            lines += ["", "![The loss, step by step](loss.png)"]
        lines += [
            "",
            f"The weights are in `{self._stages[-1].path}`." if self._stages else "",
            "",
            "## Recipe",
            "",
            "```yaml",
        ]
        lines += [
            yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).rstrip(),
            "```",
            "",
            "## Versions",
            "",
        ]
        lines += [f"- {name} {version}" for name, version in versions.items()]
        return "\n".join(lines) + "\n"
