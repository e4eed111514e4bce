"""MLflow."""

import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from tunewright.tracker import Tracker, TrackerOptions, TrackerStart

STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflow(Tracker):
    """Sends runs to an MLflow server, or writes them to a store.

    `project` is MLflow's experiment. Without a server or store, it is `logs/mlflow/mlflow.db` in
    the run folder: `mlflow ui --backend-store-uri sqlite:///RUN/logs/mlflow/mlflow.db`. A store
    that several runs share shows them side by side. Credentials are MLflow's own variables, such
    as $MLFLOW_TRACKING_TOKEN.
    """

    library = "mlflow"

    class Options(TrackerOptions):
        tracking_uri: str | None = Field(
            None,
            description="Server or store, such as http://localhost:5000 or sqlite:///mlflow.db. "
            "Default: $MLFLOW_TRACKING_URI, else a store in the run folder.",
        )

        @field_validator("tracking_uri")
        @classmethod
        def _without_password(cls, uri: str | None) -> str | None:
            if uri and urlsplit(uri).password:
                raise ValueError(
                    "holds a password: set MLFLOW_TRACKING_URI, or for a server "
                    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                )
            return uri

    def open(self, start: TrackerStart) -> str:
        for noisy in ("alembic", "mlflow.store.db"):  # a line for each table that they make
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        uri, artifacts = self.options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            start.folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{(start.folder / 'mlflow.db').absolute().as_posix()}"
            artifacts = (start.folder / "artifacts").absolute().as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        if start.run_id:
            self._id_of_run = start.run_id
            self._client.update_run(start.run_id, status="RUNNING")
        else:
            self._id_of_run = self._create(start, artifacts)
        self._client.log_dict(self._id_of_run, start.config["recipe"], "recipe.yaml")
        self._client.log_dict(self._id_of_run, start.config["versions"], "versions.yaml")
        return self._id_of_run

    def _create(self, start: TrackerStart, artifacts: str | None) -> str:
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(start.project)
        experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(start.project, artifact_location=artifacts)
        )
        tags = dict.fromkeys(map(_key, start.tags), "true")
        if start.notes:
            tags["mlflow.note.content"] = start.notes
        run = self._client.create_run(experiment, run_name=start.name, tags=tags)
        params = [
            Param(_key(name), str(value)[:6000]) for name, value in _flat(start.config)
        ]  # 6000, and 100 at a time: MLflow's limits
        for first in range(0, len(params), 100):
            self._client.log_batch(run.info.run_id, params=params[first : first + 100])
        return str(run.info.run_id)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        sent = [Metric(_key(name), value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id_of_run, metrics=sent)

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        columns = list(samples[0])
        table = {"columns": columns, "data": [[s.get(c) for c in columns] for s in samples]}
        self._client.log_dict(self._id_of_run, table, f"samples/step-{step}.json")

    def log_artifact(self, folder: Path, name: str) -> None:
        self._client.log_artifacts(self._id_of_run, str(folder), name)

    def finish(self, status: str) -> None:
        self._client.set_terminated(self._id_of_run, STATUS[status])


def _key(name: str) -> str:
    """A name as MLflow takes it: other characters are `_`, and at most 250."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:250]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists, with names such as recipe/training/epochs."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _flat(item, f"{name}/{key}" if name else str(key))
    else:
        yield name, value
