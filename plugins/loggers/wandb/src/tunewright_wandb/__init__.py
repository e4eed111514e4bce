"""Weights & Biases."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from tunewright.tracker import Tracker, TrackerOptions, TrackerStart


class Wandb(Tracker):
    """Sends runs to Weights & Biases.

    The API key is $WANDB_API_KEY, or that of `wandb login`; $WANDB_BASE_URL is a server of your
    own. Files are written to `logs/wandb` in the run folder.
    """

    library = "wandb"

    class Options(TrackerOptions):
        model_config = ConfigDict(json_schema_extra={"examples": [{"mode": "offline"}]})

        entity: str | None = Field(None, description="User or team. Default: the API key's.")
        mode: Literal["online", "offline"] | None = Field(
            None,
            description="offline: written to a folder, for `wandb sync`. Default: $WANDB_MODE.",
        )

    def open(self, start: TrackerStart) -> str:
        import wandb

        mode = self.options.mode or os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise ValueError("there is no API key: set WANDB_API_KEY, or run `wandb login`")
        self._run = wandb.init(
            entity=self.options.entity,
            project=start.project,
            name=start.name,
            id=start.run_id,
            resume="allow" if start.run_id else None,
            tags=start.tags,
            notes=start.notes,
            config=start.config,
            dir=str(start.folder.parent),  # below it, wandb makes a folder wandb
            mode=self.options.mode,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        # wandb's own step must grow; a resumed run sends steps again
        self._run.define_metric("*", step_metric="step")
        return str(self._run.id)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log({**metrics, "step": step})

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        import wandb

        columns = list(samples[0])
        data = [[sample.get(column) for column in columns] for sample in samples]
        self._run.log({"samples": wandb.Table(columns=columns, data=data), "step": step})

    def log_artifact(self, folder: Path, name: str) -> None:
        import wandb

        artifact = wandb.Artifact(name, type="model")
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact)

    def finish(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "completed" else 1)
