"""Trackio."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from tunewright.tracker import Tracker, TrackerOptions, TrackerStart


class Trackio(Tracker):
    """Writes runs to Trackio's local database, or to a Hugging Face Space.

    `trackio show` shows them. The database is in $TRACKIO_DIR, without it in Hugging Face's cache:
    all runs of a project side by side. Tags and notes are a part of the run's config. The token
    for a Space is $HF_TOKEN.
    """

    library = "trackio"

    class Options(TrackerOptions):
        model_config = ConfigDict(json_schema_extra={"examples": [{"project": "conformance"}]})

        space_id: str | None = Field(
            None, description="Hugging Face Space to send runs to. Default: they stay local."
        )

    def open(self, start: TrackerStart) -> str:
        import trackio

        self._run = trackio.init(
            project=start.project,
            name=start.name,
            config={**start.config, "tags": start.tags, "notes": start.notes},
            resume="must" if start.run_id else "never",
            space_id=self.options.space_id,
            embed=False,
        )
        if start.run_id not in (None, self._run.id):  # trackio looks for a name, and takes the last
            raise ValueError(f"the last run called {start.name} is not the one that is resumed")
        return str(self._run.id)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log(metrics, step=step)

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        import trackio

        self._run.log({"samples": trackio.Table(data=samples)}, step=step)

    def log_artifact(self, folder: Path, name: str) -> None:
        self._run.log_artifact(folder, name=name, type="model")

    def finish(self, status: str) -> None:
        self._run.finish()
