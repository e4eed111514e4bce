"""Comet."""

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from tunewright.tracker import Tracker, TrackerOptions, TrackerStart


class Comet(Tracker):
    """Sends runs to Comet.

    The API key is $COMET_API_KEY, or that of `comet login`; $COMET_URL_OVERRIDE is a server of
    your own. Offline, `logs/comet` in the run folder holds a zip file for each start of the run.
    """

    library = "comet_ml"

    class Options(TrackerOptions):
        model_config = ConfigDict(json_schema_extra={"examples": [{"mode": "offline"}]})

        workspace: str | None = Field(None, description="User or team. Default: the API key's.")
        mode: Literal["online", "offline"] | None = Field(
            None,
            description="offline: written to a zip file, for `comet upload`. "
            "Default: $COMET_START_ONLINE, else online.",
        )

    def open(self, start: TrackerStart) -> str:
        import comet_ml

        start.folder.mkdir(parents=True, exist_ok=True)
        config = comet_ml.ExperimentConfig(
            name=start.name,
            tags=start.tags,
            offline_directory=str(start.folder),
            auto_output_logging=False,
            auto_metric_logging=False,
            auto_param_logging=False,
            parse_args=False,
            log_code=False,
            log_git_patch=False,
            display_summary_level=0,
        )
        self._run = comet_ml.start(
            workspace=self.options.workspace,
            project_name=start.project,
            experiment_key=start.run_id,
            mode="get" if start.run_id else "create",
            online=None if self.options.mode is None else self.options.mode == "online",
            experiment_config=config,
        )
        if not self._run.alive:  # comet has printed why, and raises nothing
            raise ConnectionError("the server cannot be reached")
        self._run.log_parameters(start.config)
        if start.notes:
            self._run.log_other("notes", start.notes)
        return str(self._run.get_key())

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log_metrics(metrics, step=step)

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        columns = list(samples[0])
        rows = [[sample.get(column) for column in columns] for sample in samples]
        self._run.log_table(f"samples-{step}.csv", tabular_data=rows, headers=columns)

    def log_artifact(self, folder: Path, name: str) -> None:
        self._run.log_model(name, str(folder))

    def finish(self, status: str) -> None:
        self._run.log_other("status", status)
        self._run.end()
