"""Paths that requests name: rows 22 and 26 of field/attacks.md, in every id and file parameter."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tunewright_web.errors import WebError
from tunewright_web.web import Web
from tunewright_web.workspace import Workspace

TRAVERSALS = (
    "..",
    "../x",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fetc",
    "..\\..\\x",
    "....//x",
    ".tunewright",
    ".",
    "%00",
    "a%00b",
    "/etc/passwd",
    "//etc/passwd",
    "x/../../y",
    "%c0%ae%c0%ae/x",
    "CON/../..",
    "~",
)
OUTPUTS = {
    "good": True,
    "runs/good": True,
    "中文 名": True,
    "a.b-c_1+2": True,
    "x" * 100: True,
    "": False,
    "x" * 300: False,
    "字" * 100: False,  # over 200 bytes
    "/etc/x": False,
    "../x": False,
    "runs/../x": False,
    "runs/runs/x": False,
    "a/b": False,
    "a\\b": False,
    ".hidden": False,
    "-flag": False,
    "--overwrite": False,
    " a": False,
    "a ": False,
    "a\n": False,
    "a\0": False,
    "a\u202eb": False,
    "a:b": False,
    "..": False,
    "runs/": False,
    "~": True,
}


@pytest.mark.parametrize("text", OUTPUTS)
def test_outputs(tmp_path: Path, text: str) -> None:
    """Accepted as it is, or refused: never renamed."""
    workspace = Workspace(tmp_path)
    if OUTPUTS[text]:
        assert workspace.output(text) == tmp_path / "runs" / text.removeprefix("runs/")
    else:
        with pytest.raises(WebError) as raised:
            workspace.output(text)
        assert raised.value.status == 422


def test_readable(tmp_path: Path) -> None:
    root, other, allowed = (tmp_path / name for name in ("root", "root_evil", "allowed"))
    for folder in (root, other, allowed):
        folder.mkdir()
        (folder / "data.jsonl").write_text("{}")
    (root / "link").symlink_to(other / "data.jsonl")
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "data.jsonl")
    workspace = Workspace(root, [allowed])
    workspace.create()
    (workspace.hidden / "token").write_text("secret")
    for text in ("data.jsonl", str(root / "data.jsonl"), "in", str(allowed / "data.jsonl"), "runs"):
        assert workspace.readable(text).exists()
    refused = (
        *("/etc/passwd", "../root_evil/data.jsonl", str(other / "data.jsonl"), "link"),
        *("out/root_evil/data.jsonl", ".tunewright/token", str(workspace.hidden), "out", "~"),
        *(
            "file:///etc/passwd",
            "http://127.0.0.1/x",
            "",
            "\0",
            "a\0",
            "~nobody-here/x",
            "x" * 9999,
        ),
    )
    for text in refused:
        with pytest.raises(WebError) as raised:
            workspace.readable(text)
        assert raised.value.status in (403, 404), text
    # the answer does not tell whether a file exists elsewhere
    said = []
    for text in ("/etc/passwd", "/etc/no-such-file"):
        with pytest.raises(WebError) as raised:
            workspace.readable(text)
        said.append(raised.value.error.replace(text, ""))
    assert said[0] == said[1]


@pytest.mark.parametrize("text", TRAVERSALS)
def test_traversal(client: TestClient, web: Web, text: str) -> None:
    """In every parameter of a path: 4xx, and nothing is read, changed or removed."""
    run = web.workspace.runs / "run"
    run.mkdir()
    (run / "run.json").write_text('{"status": "completed", "stages": [], "recipe": {}}')
    (web.workspace.root / "secret.png").write_text("secret")
    (run / "link.png").symlink_to(web.workspace.root / "secret.png")
    gets = (
        *(f"/api/v1/runs/{text}", f"/api/v1/runs/{text}/log", f"/api/v1/runs/{text}/metrics"),
        *(f"/api/v1/runs/run/files/{text}", f"/api/v1/jobs/{text}", f"/api/v1/drafts/{text}"),
        *(f"/runs/{text}", f"/runs/{text}?tab=log", f"/runs/run/picture/{text}", f"/jobs/{text}"),
        *(f"/static/{text}", "/runs/run/picture/link.png", "/api/v1/runs/run/files/link.png"),
    )
    for path in gets:
        answer = client.get(path)
        is_list = answer.status_code in (200, 303) and path.count("..") + path.count(".") > 0
        assert 400 <= answer.status_code < 500 or is_list, (path, answer.status_code)
        assert "secret" not in answer.text.replace("secret.png", ""), path
        assert "root:" not in answer.text
    for action in ("stop", "resume", "delete"):
        assert 400 <= client.post(f"/runs/{text}/{action}").status_code < 500
    assert client.delete(f"/api/v1/runs/{text}").status_code >= 400
    assert run.is_dir()
    assert (web.workspace.root / "secret.png").exists()


def test_runs_that_are_links_are_not_deleted(client: TestClient, web: Web) -> None:
    target = web.workspace.root / "elsewhere"
    target.mkdir()
    (target / "run.json").write_text('{"status": "completed", "stages": [], "recipe": {}}')
    (web.workspace.runs / "linked").symlink_to(target)
    assert client.delete("/api/v1/runs/linked").status_code == 404
    assert target.is_dir()


@pytest.mark.parametrize(
    "after", ["x", "0", "00000000.0x", "-1", "1e9", "ffffffff.1", "g" * 40, "é"]
)
def test_bad_cursors(client: TestClient, web: Web, after: str) -> None:
    """4xx, or the whole curve anew; never an internal error."""
    run = web.workspace.runs / "run"
    run.mkdir()
    (run / "run.json").write_text('{"status": "completed", "stages": [], "recipe": {}}')
    (run / "events.jsonl").write_text('{"event": "RunStarted", "time": 1.0}\n')
    for name in ("metrics", "news", "events"):
        answer = client.get(
            f"/api/v1/runs/run/{name}",
            params={"after": after, "follow": "no"} if name == "events" else {"after": after},
        )
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 200 and name != "events":
            assert answer.json()["reset"]
    assert client.get("/api/v1/runs/run/metrics?after=x").status_code == 400
    good = client.get("/api/v1/runs/run/metrics").json()["cursor"]
    between = f"{good[:9]}{int(good[9:], 16) - 3:x}"  # within a line
    assert client.get(f"/api/v1/runs/run/metrics?after={between}").status_code == 400
    beyond = f"{good[:9]}ffff"
    assert client.get(f"/api/v1/runs/run/metrics?after={beyond}").status_code == 400
    assert client.get(f"/api/v1/runs/run/metrics?after={good}").json()["series"] == {}
