"""Aim."""

from pathlib import Path
from typing import Any

from pydantic import Field

from tunewright.tracker import Tracker, TrackerOptions, TrackerStart


class Aim(Tracker):
    """Writes runs to an Aim repository.

    `project` is Aim's experiment. `aim up --repo RUN/logs/aim` shows the default repository; one
    that several runs share shows them side by side. The result is copied to `artifacts` below it.
    """

    library = "aim"

    class Options(TrackerOptions):
        repo: str | None = Field(
            None,
            description="Folder of the repository, or aim://HOST:PORT. Default: in the run folder.",
            json_schema_extra={"widget": "path"},
        )

    def open(self, start: TrackerStart) -> str:
        import aim

        repo = self.options.repo or str(start.folder.absolute())
        if "://" not in repo:
            Path(repo).mkdir(parents=True, exist_ok=True)
            if not aim.Repo.exists(repo):
                aim.Repo.from_path(repo, init=True)
        self._run = aim.Run(
            start.run_id,
            repo=repo,
            experiment=start.project,
            force_resume=start.run_id is not None,
            system_tracking_interval=None,
            capture_terminal_logs=False,
        )
        self._run.name, self._run.description = start.name, start.notes
        for tag in start.tags if start.run_id is None else []:
            self._run.add_tag(tag)
        for key, value in start.config.items():
            self._run[key] = value
        if "://" not in repo:
            self._run.set_artifacts_uri((Path(repo).absolute() / "artifacts").as_uri())
        return str(self._run.hash)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._run.track(value, name=name, step=step)

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        import aim

        texts = ["\n".join(f"{key}: {value}" for key, value in each.items()) for each in samples]
        self._run.track([aim.Text(text) for text in texts], name="samples", step=step)

    def log_artifact(self, folder: Path, name: str) -> None:
        self._run.log_artifacts(str(folder), name, block=True)

    def finish(self, status: str) -> None:
        self._run["status"] = status
        self._run.close()
