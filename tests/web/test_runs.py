"""The list of runs, from their folders: who started them does not matter."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from starlette.testclient import TestClient

from tunewright_web.processes import HOST
from tunewright_web.web import Web
from web.fakes import logged, run_folder, stage_started, write_events


def names(client: TestClient, **query: str) -> list[str]:
    return [run["name"] for run in client.get("/api/v1/runs", params=query).json()["runs"]]


def test_empty(client: TestClient) -> None:
    """An empty workspace says so, and what to do."""
    text = client.get("/").text
    assert "No runs yet" in text
    assert 'href="/new"' in text
    assert 'value="quickstart"' in text


def test_statuses(client: TestClient, web: Web) -> None:
    runs = web.workspace.runs
    started = time.time()
    alive = {"pid": os.getpid(), "host": HOST, "started": started, "step": 3, "total_steps": 9}
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    run_folder(runs / "done")
    run_folder(runs / "stopped", "interrupted")
    run_folder(runs / "live", "running", running=alive)
    run_folder(runs / "killed", "running", running=alive | {"pid": gone.pid})
    reused = alive | {"started": started - 90 * 86400}  # of a process that began long after
    run_folder(runs / "reused", "running", running=reused)
    run_folder(runs / "elsewhere", "running", running=alive | {"host": "other", "pid": gone.pid})
    (runs / "empty").mkdir()
    found = {run["name"]: run for run in client.get("/api/v1/runs").json()["runs"]}
    assert {name: run["status"] for name, run in found.items()} == {
        "done": "completed",
        "stopped": "interrupted",
        "live": "running",
        "killed": "lost",
        "reused": "lost",
        "elsewhere": "running",
    }
    assert found["live"]["can_stop"]
    assert not found["elsewhere"]["can_stop"]
    assert not found["done"]["can_stop"]
    assert "gone without a word" in found["killed"]["error"]
    page = client.get("/runs/done").text
    assert 'action="/runs/done/stop"' not in page
    assert 'action="/runs/done/delete"' in page
    assert 'action="/runs/live/delete"' not in client.get("/runs/live").text
    assert client.post("/api/v1/runs/done/stop").status_code == 409
    assert client.delete("/api/v1/runs/live").status_code == 409
    assert client.delete("/api/v1/runs/done").status_code == 200
    assert not (runs / "done").exists()


def test_search(client: TestClient, web: Web) -> None:
    for name, model in (("alpha", "org/qwen-7b"), ("beta", "tiny")):
        recipe = {"model": model, "adapter": {"name": "lora"}, "stages": [{"name": "dpo"}]}
        run_folder(web.workspace.runs / name, recipe=recipe)
    assert names(client, q="qwen") == ["alpha"]
    assert names(client, q="LORA beta") == ["beta"]
    assert names(client, status="failed") == []
    assert client.get("/api/v1/runs?status=nonsense").status_code == 422
    assert "No run matches" in client.get("/?q=nothing").text


def test_damage(client: TestClient, web: Web) -> None:
    """One damaged folder does not hide the others."""
    runs = web.workspace.runs
    run_folder(runs / "good")
    for name, text in (("broken", "{"), ("list", "[]"), ("odd", '{"status": 3}')):
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(text)
        page = client.get(f"/runs/{name}")
        assert page.status_code == 200
        assert "run.json is damaged" in page.text
    for tab in ("log", "samples", "files", "recipe"):
        assert client.get(f"/runs/broken?tab={tab}").status_code == 200
    assert sorted(names(client)) == ["broken", "good", "list", "odd"]
    assert client.get("/").status_code == 200
    half = {"status": "running", "stages": None, "recipe": {"stages": [None], "model": 3}}
    (runs / "odd" / "run.json").write_text(json.dumps(half))
    assert client.get("/runs/odd").status_code == 200


def test_deleted_while_open(client: TestClient, web: Web) -> None:
    folder = run_folder(web.workspace.runs / "run")
    write_events(folder, [stage_started(9), logged(1)])
    assert client.get("/runs/run").status_code == 200
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    for path in ("/runs/run", "/runs/run/head", "/api/v1/runs/run/metrics"):
        answer = client.get(path, headers={"HX-Request": "true"})
        assert answer.status_code == 404
        assert "there is no run" in answer.text.replace("&#39;", "'")
    assert names(client) == []


def test_a_thousand_folders(client: TestClient, web: Web) -> None:
    """Fifty are on a page; files are read once, and again only where they change."""
    for number in range(1_000):
        folder = run_folder(web.workspace.runs / f"run{number:04}")
        write_events(folder, [stage_started(9), logged(9, number)])
        os.utime(folder / "run.json", (number, number))
    text = client.get("/").text
    assert len(re.findall(r'data-run="', text)) == 50
    assert "1–50 of 1000" in text
    assert 'data-run="run0999"' in text
    assert 'data-run="run0949"' in client.get("/?from=50").text
    opened: list[str] = []
    sys.addaudithook(lambda name, given: opened.append(str(given[0])) if name == "open" else None)
    assert len(names(client)) == 1_000
    assert not [path for path in opened if path.endswith(("run.json", "events.jsonl"))]
    run_folder(web.workspace.runs / "run0500", "failed")
    assert names(client, status="failed") == ["run0500"]


def test_what_a_run_says_is_text(client: TestClient, web: Web) -> None:
    """Names, models, prompts and errors of others are never HTML."""
    evil = "<img src=x onerror=alert(1)>"
    recipe = {"model": evil, "adapter": {"name": evil}, "stages": [{"name": evil}]}
    folder = run_folder(web.workspace.runs / "evil", recipe=recipe, warnings=[evil])
    sample = {"event": "Sampled", "time": 1.0, "stage": "grpo", "step": 1}
    sample |= {"prompt": evil, "completion": f"{evil}\x1b[31m", "rewards": {evil: 1.0}}
    notice = {"event": "Notice", "time": 1.0, "message": evil, "level": "info"}
    lines = [json.dumps(sample) + "\n", json.dumps(notice) + "\n"]
    write_events(folder, [stage_started(9), *lines, logged(1)])
    for path in (
        "/",
        "/runs/evil",
        *(f"/runs/evil?tab={tab}" for tab in ("log", "samples", "recipe")),
    ):
        text = client.get(path).text
        assert "<img src=x" not in text
        assert "onerror=alert" not in text.replace("&lt;img src=x onerror=alert(1)&gt;", "")


def test_recipe_differences(client: TestClient, web: Web) -> None:
    for name, rank in (("one", 8), ("two", 16)):
        recipe = {"model": "tiny", "adapter": {"name": "lora", "rank": rank}, "output": name}
        run_folder(web.workspace.runs / name, recipe=recipe)
    text = client.get("/runs/one?tab=recipe&other=two").text
    assert "<code>adapter.rank</code>" in text
    assert "<code>model</code>" not in text
    assert "<code>output</code>" not in text


def test_secrets_stay(client: TestClient, web: Web) -> None:
    """The kernel masks secrets in the run folder; the token of the server is shown nowhere."""
    token = "a-token-of-the-tests"
    for path in ("/settings", "/", "/api/v1/system", "/api/v1/openapi.json"):
        assert token not in client.get(path).text


def test_files(client: TestClient, web: Web) -> None:
    folder = run_folder(web.workspace.runs / "run")
    (folder / "model").mkdir()
    (folder / "model" / "a b.txt").write_text("text")
    (folder / ".lock").write_text("")
    found = client.get("/api/v1/runs/run/files").json()["files"]
    assert [each["name"] for each in found] == ["run.json", "model/a b.txt"]
    answer = client.get("/api/v1/runs/run/files/model/a%20b.txt")
    assert answer.text == "text"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert client.get("/api/v1/runs/run/files/.lock").status_code == 404


def test_log_parts(client: TestClient, web: Web, tmp_path: Path) -> None:
    """A log of 50 MB comes in parts of 64 kB, its end first; characters are never cut."""
    from tunewright_web.files import log_part

    path = tmp_path / "log.txt"
    path.write_text("é" * 100 + "\x1b[31mred\x1b[0m\nbar 1\rbar 2\r\nlast", "utf-8")
    assert log_part(path, "")["text"] == "é" * 100 + "red\nbar 2\nlast"
    with path.open("ab") as file:
        file.write(b"x" * 50_000_000 + "é".encode()[:1])
    found = log_part(path, "")
    assert len(found["text"]) <= 65_536
    assert found["skipped"] > 49_000_000
    with path.open("ab") as file:
        file.write("é".encode()[1:])
    assert log_part(path, found["cursor"])["text"] == "é"
    far = log_part(path, "10")
    assert far["skipped"] > 0


def test_a_try_has_a_page_before_it_has_a_folder(client: TestClient, web: Web) -> None:
    web.jobs.add("smoke", ["train", "x"], title="a", output="runs/a-smoke", claim=False)
    assert web.runs.get("a-smoke").status in ("queued", "running")
    assert client.get("/runs/a-smoke").status_code == 200
    assert client.get("/runs/b-smoke").status_code == 404
