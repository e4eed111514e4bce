"""Conversations: what is kept, what a model's text becomes, and which models may be opened."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tunewright_web.chat.conversation import Call, Chat, Message, parse_tools, wire_messages
from tunewright_web.chat.markdown import rendered
from tunewright_web.chat.targets import ChatModel, arguments_of
from tunewright_web.errors import WebError
from tunewright_web.web import Web


@pytest.fixture
def run(web: Web) -> Path:
    """A folder that looks like a trained run."""
    folder = web.workspace.runs / "first"
    (folder / "model").mkdir(parents=True)
    (folder / "checkpoints/step-3").mkdir(parents=True)
    state = {"status": "completed", "recipe": {"model": "org/base"}, "stages": []}
    (folder / "run.json").write_text(json.dumps(state))
    return folder


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<b onclick=x>a</b>", "&lt;b onclick=x&gt;"),
        ("[a](javascript:x)", "[a](javascript:x)"),
        ("\x1b[31mred", "␛[31mred"),
        ("**a**", "<strong>a</strong>"),
        ("[a](http://b)", 'rel="noreferrer noopener nofollow"'),
        ("x" * 200_000, '<pre class="plain">'),
    ],
)
def test_markdown(text: str, html: str) -> None:
    found = rendered(text)
    assert html in found
    assert "<img" not in rendered("![a](http://b/c.png)")
    assert "<script" not in found


def test_models_that_may_be_opened(web: Web, run: Path, tmp_path: Path) -> None:
    folder = str(run)
    assert arguments_of(web, ChatModel(run="first")) == ["--", folder]
    assert arguments_of(web, ChatModel(run="first", checkpoint="step-3", engine="hf")) == [
        "--engine",
        "hf",
        "--",
        f"{folder}/checkpoints/step-3",
    ]
    assert arguments_of(web, ChatModel(model="org/name")) == ["--", "org/name"]
    assert arguments_of(web, ChatModel(model="runs/first/model", template="chatml"))[-2:] == [
        f"{folder}/model",
        "template=chatml",
    ]
    web.trusted = ("org/base",)
    assert "--trust-remote-code" in arguments_of(web, ChatModel(run="first"))


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"run": "first", "model": "org/name"},
        {"run": "none"},
        {"run": "../first"},
        {"run": "first", "checkpoint": "../../x"},
        {"run": "first", "checkpoint": "step-4"},
        {"model": "/etc"},
        {"model": "../x/y"},
        {"model": "--help"},
        {"run": "first", "engine": "vlm"},
        {"run": "first", "engine": "vllm", "address": "file:///etc/passwd"},
        {"run": "first", "address": "http://127.0.0.1:1"},
        {"model": "org/name", "template": "a b=c"},
    ],
)
def test_models_that_are_refused(web: Web, run: Path, model: dict[str, str]) -> None:
    with pytest.raises(WebError):
        arguments_of(web, ChatModel(**model))


def chat() -> Chat:
    calls = [Call(id="1", name="add", arguments="{}"), Call(id="2", name="add", arguments="{}")]
    messages = [
        Message(role="user", content="a"),
        Message(role="assistant", calls=calls),
        Message(role="tool", content="3", call_id="1", name="add"),
    ]
    return Chat(id="0" * 16, models=[ChatModel(run="first")], sides=[messages])


def test_calls_wait_for_their_results() -> None:
    found = chat()
    assert [call.id for call in found.open_calls(0)] == ["2"]
    found.sides[0].append(Message(role="tool", content="7", call_id="2", name="add"))
    assert not found.open_calls(0)
    assert [message.role for message in found.turn(0)] == ["user", "assistant", "tool", "tool"]
    sent = wire_messages(found.turn(0), "Be brief.", None)
    assert [each["role"] for each in sent] == ["system", "user", "assistant", "tool", "tool"]
    assert sent[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": "{}"}
    assert sent[4]["tool_call_id"] == "2"
    [(user, [[*others]])] = found.exchanges()
    assert (user.content, len(others)) == ("a", 3)
    found.cut(0)
    assert found.sides == [[]]


@pytest.mark.parametrize("text", ["[", "[1]", '[{"description": "x"}]', '{"function": 1}'])
def test_tools_that_are_none(text: str) -> None:
    with pytest.raises(WebError, match="tools"):
        parse_tools(text)


def test_tools_in_both_forms() -> None:
    plain = {"name": "add", "parameters": {"type": "object"}}
    whole = [{"type": "function", "function": plain}]
    assert parse_tools(json.dumps([plain])) == parse_tools(json.dumps(whole)) == whole
    assert parse_tools(" ") == []


def test_api_of_a_chat_without_a_process(client: TestClient, web: Web, run: Path) -> None:
    store = web.workspace.hidden / "chats"
    made = chat()
    (store / made.id).mkdir(parents=True)
    (store / made.id / "chat.json").write_text(made.model_dump_json())
    path = f"/api/v1/chats/{made.id}"
    found = client.get(path).json()
    assert (found["busy"], found["engines"][0]["state"]) == (False, "unloaded")
    assert client.get("/api/v1/chats").json()[0]["id"] == made.id
    changed = client.patch(path, json={"system": "Be brief.", "sampling": {"temperature": 0.5}})
    assert changed.json()["sampling"]["temperature"] == 0.5
    assert client.patch(path, json={"sampling": {"temperature": -1}}).status_code == 422
    said = client.post(f"{path}/messages", json={"content": "b"})
    assert (said.status_code, said.json()["error"]) == (409, "a tool call waits for its result")
    assert client.post(f"{path}/messages", json={"results": []}).status_code == 422
    assert client.post(f"{path}/messages", json={"content": "x" * 200_001}).status_code == 422
    assert client.get(f"{path}/prompt").status_code == 409
    assert client.get(f"{path}/events").status_code == 409
    assert client.post(f"{path}/stop").json() == {"stopped": False}
    two = {"models": [{"run": "first"}, {"run": "first"}], "tools": [{"name": "a"}]}
    assert client.post("/api/v1/chats", json=two).status_code == 422
    assert client.delete(path).json() == {"deleted": made.id}
    assert client.get(path).status_code == 404


def test_files_of_a_chat(client: TestClient, web: Web, run: Path) -> None:
    store = web.workspace.hidden / "chats"
    made = chat()
    (store / made.id).mkdir(parents=True)
    (store / made.id / "chat.json").write_text(made.model_dump_json())

    def sent(kind: str, data: bytes) -> tuple[int, dict[str, str]]:
        address = f"/chat/{made.id}/media"
        answer = client.post(address, content=data, headers={"Content-Type": kind})
        return answer.status_code, answer.json() if answer.status_code == 201 else {}

    status, media = sent("image/png", b"png")
    assert (status, media["kind"]) == (201, "image")
    kept = client.get(f"/chat/{made.id}/media/{media['name']}")
    assert (kept.content, kept.headers["content-type"]) == (b"png", "image/png")
    # Firefox's name for what others call audio/wav
    status, sound = sent("audio/x-wav", b"RIFF")
    assert (status, sound["kind"], sound["name"].rpartition(".")[2]) == (201, "audio", "wav")
    assert sent("image/svg+xml", b"<svg/>")[0] == 415
    assert sent("text/html", b"<b>")[0] == 415
    assert sent("image/png", b"")[0] == 422
    assert sent("image/png", b"x" * (16 * 2**20 + 1))[0] == 413
    for name in ("chat.json", "../token", "..%2ftoken", "x.png"):
        assert client.get(f"/chat/{made.id}/media/{name}").status_code == 404
