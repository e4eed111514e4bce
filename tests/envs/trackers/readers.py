"""Reading back what trackers wrote, each from its own store."""

import csv
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class Written:
    """What a tracker knows of a run. It is one run: a reader fails where there are two."""

    id: str
    name: str
    project: str
    config: dict[str, Any]  # recipe and versions
    tags: list[str]
    notes: str
    status: str
    metrics: dict[str, dict[int, float]] = field(default_factory=dict)  # name → step → number
    samples: dict[int, str] = field(default_factory=dict)  # step → text that holds the sample
    artifact: dict[str, str] = field(default_factory=dict)  # file name → content, or its size


def wandb(run: Path) -> Written:
    from wandb.proto.wandb_internal_pb2 import Record

    found: Written | None = None
    for file in sorted((run / "logs/wandb").glob("offline-run-*/*.wandb")):
        for data in _records(file):
            record = Record.FromString(data)
            match record.WhichOneof("record_type"):
                case "run":
                    made = record.run
                    config = {item.key: json.loads(item.value_json) for item in made.config.update}
                    about = made.display_name, made.project, config, list(made.tags), made.notes
                    found = found or Written(made.run_id, *about, status="")
                    assert found.id == made.run_id
                case "history":
                    assert found is not None
                    _wandb_history(found, file.parent / "files", record.history)
                case "artifact" if record.artifact.type == "model":
                    assert found is not None
                    entries = record.artifact.manifest.contents
                    found.artifact = {e.path: str(e.size) for e in entries}
                case "exit":
                    assert found is not None
                    found.status = str(record.exit.exit_code)
    assert found is not None
    return found


def _wandb_history(found: Written, files: Path, history: Any) -> None:
    row: dict[str, Any] = {}
    for item in history.item:
        row["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    step = row.pop("step")
    if "samples/path" in row:
        table = json.loads((files / row["samples/path"]).read_text("utf-8"))
        found.samples[step] = json.dumps(table, ensure_ascii=False)
    for name, value in row.items():
        if not name.startswith(("_", "samples")):
            found.metrics.setdefault(name, {})[step] = value


def _records(file: Path) -> Iterator[bytes]:
    """Records of a LevelDB log, as wandb and SwanLab write it: blocks of 32 KiB."""
    data, position, part = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        part += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def swanlab(run: Path) -> Written:
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    found: Written | None = None
    for file in sorted((run / "logs/swanlab").glob("run-*/*.swanlab")):
        for record in map(Record.FromString, _records(file)):
            match record.WhichOneof("record_type"):
                case "start":
                    made = record.start
                    config = yaml.safe_load((file.parent / "files/config.yaml").read_text("utf-8"))
                    config = {key: item["value"] for key, item in config.items()}
                    about = made.name, made.project, config, list(made.tags), made.description
                    found = found or Written(made.id, *about, status="")
                    assert found.id == made.id
                case "scalar":
                    assert found is not None
                    at = found.metrics.setdefault(record.scalar.key, {})
                    at[record.scalar.step] = record.scalar.value.number
                case "media":
                    assert found is not None
                    text = file.parent / "media/text" / record.media.value.items[0].filename
                    found.samples[record.media.step] = text.read_text("utf-8")
                case "save" if record.save.target_path:
                    assert found is not None
                    target = Path(record.save.target_path)
                    found.artifact[target.name] = target.read_text("utf-8")
                case "finish":
                    assert found is not None
                    found.status = str(record.finish.state)
    assert found is not None
    return found


def comet(run: Path) -> Written:
    found: Written | None = None
    for file in sorted((run / "logs/comet").glob("*.zip"), key=lambda file: file.stat().st_mtime):
        with zipfile.ZipFile(file) as archive:
            about = json.loads(archive.read("experiment.json"))
            key = about["offline_id"]
            found = found or Written(key, "", about["project_name"], {}, about["tags"], "", "")
            assert found.id == key
            for line in archive.read("messages.json").decode().splitlines():
                message = json.loads(line)
                _comet_message(found, archive, message["type"], message["payload"])
    assert found is not None
    return found


def _comet_message(
    found: Written, archive: zipfile.ZipFile, kind: str, payload: dict[str, Any]
) -> None:
    match kind:
        case "metric_msg":
            metric = payload["metric"]
            if not metric["metricName"].startswith("sys."):
                at = found.metrics.setdefault(metric["metricName"], {})
                at[metric["step"]] = metric["metricValue"]
        case "parameter_msg":
            param = payload.get("param") or payload["params"]
            at = found.config
            *outer, last = param["paramName"].split("|")
            for part in outer:
                at = at.setdefault(part, {})
            at[last] = param["paramValue"]
        case "log_other":
            names = {"Name": "name", "notes": "notes", "status": "status"}
            if name := names.get(payload["key"]):
                setattr(found, name, payload["value"])
        case "file_upload":
            name = payload["additional_params"]["fileName"]
            text = archive.read(payload["file_path"]).decode()
            if name.startswith("samples-"):
                rows = list(csv.reader(io.StringIO(text)))
                found.samples[int(name[len("samples-") : -len(".csv")])] = str(rows)
            else:
                found.artifact[Path(name).name] = text


def trackio(run: Path) -> Written:
    from trackio.sqlite_storage import SQLiteStorage

    own = json.loads((run / "logs/trackio.json").read_text())["id"]
    ((record),) = [each for each in SQLiteStorage.get_run_records("birds") if each["id"] == own]
    config = SQLiteStorage.get_run_config("birds", record["name"], run_id=own)
    found = Written(own, record["name"], "birds", config, config["tags"], config["notes"], "")
    for row in SQLiteStorage.get_logs("birds", record["name"], run_id=own):
        step = row.pop("step")
        for name, value in row.items():
            if name == "samples":
                found.samples[step] = json.dumps(value)
            elif name != "timestamp":
                found.metrics.setdefault(name, {})[step] = value
    with SQLiteStorage._get_connection(SQLiteStorage.get_project_db_path("birds")) as opened:
        rows = opened.execute(
            "select manifest from artifact_versions where producer_run_id = ?", (own,)
        ).fetchall()
    found.artifact = {"manifest": str([row[0] for row in rows])}
    return found


def aim(run: Path) -> Written:
    from aim import Repo
    from aim.sdk.index_manager import RepoIndexManager
    from aim.storage.context import Context

    own = json.loads((run / "logs/aim.json").read_text())["id"]
    repo = Repo.from_path(str(run / "logs/aim"))
    RepoIndexManager.get_index_manager(repo).index(own)  # as `aim up` does when it starts
    opened = Repo(str(run / "logs/aim")).get_run(own)
    config = {"recipe": opened["recipe"], "versions": opened["versions"]}
    about = opened.name, opened.experiment, config, opened.tags, opened.description
    found = Written(own, *about, status=opened["status"])
    for metric in opened.metrics():
        steps, (values, *_) = metric.data.items_list()
        found.metrics[metric.name] = dict(zip(steps, values, strict=True))
    if texts := opened.get_text_sequence("samples", Context({})):
        steps, (values, *_) = texts.data.items_list()
        for step, value in zip(steps, values, strict=True):
            found.samples[step] = "\n".join(text.data for text in value)
    for name, artifact in opened.artifacts.items():
        found.artifact[Path(name).name] = Path(artifact.uri.removeprefix("file://")).read_text()
    return found


def mlflow(run: Path, uri: str | None = None) -> Written:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri or f"sqlite:///{run / 'logs/mlflow/mlflow.db'}")
    own = json.loads((run / "logs/mlflow.json").read_text())["id"]
    experiment = client.get_experiment_by_name("birds")
    assert [each.info.run_id for each in client.search_runs([experiment.experiment_id])] == [own]
    data, info = client.get_run(own).data, client.get_run(own).info
    files = Path(client.download_artifacts(own, ""))
    config = {
        name: yaml.safe_load((files / f"{name}.yaml").read_text("utf-8"))
        for name in ("recipe", "versions")
    }
    assert data.params["recipe/model"] == "tiny"
    tags = [tag for tag in data.tags if not tag.startswith("mlflow.")]
    about = info.run_name, experiment.name, config, tags, data.tags["mlflow.note.content"]
    found = Written(own, *about, status=info.status)
    for name in data.metrics:
        found.metrics[name] = {m.step: m.value for m in client.get_metric_history(own, name)}
    for file in (files / "samples").glob("*"):
        found.samples[int(file.stem[len("step-") :])] = file.read_text("utf-8")
    found.artifact = {file.name: file.read_text("utf-8") for file in files.glob("*/adapter.txt")}
    return found
