"""New run: names of runs, and paths of data, models and plugins.

Checks of the report are named by their number.
"""

import pytest

from web.new_setup import RECIPE, problems, rows

__all__ = ["rows"]


@pytest.mark.parametrize(  # check 16
    ("output", "said"),
    [
        ("/etc/x", "expected runs/NAME"),
        ("../x", "expected runs/NAME"),
        ("first", "expected runs/NAME"),
        ("runs/../x", "no name"),
        ("runs/a/b", "no name"),
        ("runs/.hidden", "no name"),
        ("runs/" + "x" * 300, "no name"),
        ("runs/taken", "is there already"),
        ("runs/a\u202eb", "no name"),
        (None, "is missing"),
        ("", "expected runs/NAME"),
    ],
)
def test_names_of_runs_that_are_refused(client, web, rows, output, said):
    (web.workspace.runs / "taken").mkdir()
    assert said in problems(client, output=output)["output"]


@pytest.mark.parametrize("output", ["runs/中文 名", "runs/a-b_c.2"])  # check 16
def test_names_of_runs_that_are_taken_as_they_are(client, rows, output):
    assert problems(client, output=output) == {}


@pytest.mark.parametrize(  # check 17
    "path",
    [
        "/etc/passwd",
        "../secret.jsonl",
        "data/../../secret.jsonl",
        "link.jsonl",
        "folder/rows.jsonl",
        "folder/*.jsonl",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "~/rows.jsonl",
        ".tunewright/token",
        "http://127.0.0.1/a.jsonl",
        "simplecache::file:///etc/passwd",
    ],
)
def test_data_outside_the_workspace_is_refused(client, web, rows, tmp_path_factory, path):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "rows.jsonl").write_text(rows.read_text())
    (web.workspace.root / "link.jsonl").symlink_to(outside / "rows.jsonl")
    (web.workspace.root / "folder").symlink_to(outside)
    for changes in (
        {"data": [{"path": path}]},
        {"eval_data": {"x": [{"path": path}]}},
        {"stage": None, "stages": [{"name": "sft", "data": [{"path": path}]}]},
    ):
        found = problems(client, **changes)
        assert any("not in the workspace" in each for each in found.values()), found
    answer = client.post("/api/v1/preview", json={"recipe": {**RECIPE, "data": [{"path": path}]}})
    assert answer.status_code == 422 and "not in the workspace" in answer.json()["error"]


@pytest.mark.parametrize(
    "model", ["/etc", "../model", "link", "~", "file:///etc", "runs/../../model"]
)
def test_models_outside_the_workspace_are_refused(client, web, rows, model):
    (web.workspace.root / "link").symlink_to("/etc")
    assert "not in the workspace" in problems(client, model=model)["model"]


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": {"name": "distill", "teacher": "/etc"}},
        {"stage": {"name": "dpo", "reference": "../model"}},
        {"launch": {"name": "ray", "storage": "/var/x", "processes": 2}},
        {"loggers": ["console", {"name": "aim", "repo": "~/aim"}]},
        {"engine": {"name": "vllm", "environment": "/opt/vllm"}},
    ],
)
def test_paths_of_plugins_outside_the_workspace_are_refused(client, rows, changes):
    """Whichever option its plugin declares as a path."""
    found = problems(client, **changes)
    assert [name for name, said in found.items() if "not in the workspace" in said], found


def test_data_of_a_hub_is_no_path(client):
    assert problems(client, data=[{"path": "org/name", "hub": "hf"}]) == {}
