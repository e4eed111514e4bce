"""SwanLab."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from tunewright.tracker import Tracker, TrackerOptions, TrackerStart

STATE = {"completed": "success", "interrupted": "aborted", "failed": "crashed"}


class SwanLab(Tracker):
    """Sends runs to SwanLab.

    The API key is $SWANLAB_API_KEY, or that of `swanlab login`; $SWANLAB_API_HOST is a server of
    your own. Files are written to `logs/swanlab` in the run folder.
    """

    library = "swanlab"

    class Options(TrackerOptions):
        model_config = ConfigDict(json_schema_extra={"examples": [{"mode": "offline"}]})

        project: str = Field(
            "tunewright",
            pattern=r"^[0-9a-zA-Z_\-+.]{1,100}$",
            description="Project: letters, digits and `_-+.`, at most 100.",
        )
        workspace: str | None = Field(None, description="User or team. Default: the API key's.")
        mode: Literal["online", "local", "offline"] | None = Field(
            None,
            description="local: only written to a folder; offline: to be sent with `swanlab sync`. "
            "Default: $SWANLAB_MODE, else online.",
        )

    def open(self, start: TrackerStart) -> str:
        import swanlab

        start.folder.mkdir(parents=True, exist_ok=True)
        self._run = swanlab.init(
            mode=self.options.mode,
            workspace=self.options.workspace,
            project=start.project,
            name=start.name,
            id=start.run_id,
            resume="allow" if start.run_id else None,
            tags=start.tags,
            description=start.notes or None,
            config=start.config,
            log_dir=str(start.folder),
            settings=swanlab.Settings(
                interactive=False, terminal=swanlab.Settings.Terminal(proxy_type="none")
            ),
        )
        return str(self._run.id)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log({_key(name): value for name, value in metrics.items()}, step=step)

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        import swanlab

        texts = [_text(sample) for sample in samples]
        self._run.log({"samples": [swanlab.Text(text) for text in texts]}, step=step)

    def log_artifact(self, folder: Path, name: str) -> None:
        self._run.save(str(folder / "**/*"), base_path=folder.parent, policy="end")

    def finish(self, status: str) -> None:
        error = None if status == "completed" else f"the run was {status}"
        self._run.finish(STATE[status], error=error)


def _key(name: str) -> str:
    """A name as SwanLab takes it: `_` for control characters and for `.` and `/` at its ends."""
    return re.sub(r"[\x00-\x1f\x7f]|^[./]|[./]$", "_", name)[:512]


def _text(sample: dict[str, Any]) -> str:
    """A completion as text: a line for each reward, then prompt and completion."""
    rewards = [f"{k}: {v}" for k, v in sample.items() if k not in ("prompt", "completion")]
    return "\n".join([*rewards, "", sample["prompt"], "→", sample["completion"]])
