"""Uploads: to stand-ins of Hugging Face and ModelScope through their libraries, to Modelers through
a double of its library, whose addresses are https only."""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import yaml
from huggingface_hub import HfApi
from safetensors.torch import load_file

from export.exporting import export
from tunewright import RecipeError, RunError

TOKEN = "hf_a_secret"


class StandIn:
    """Hugging Face's and ModelScope's protocols, as far as an upload needs them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.blobs: dict[str, bytes] = {}
        self.url, self.refuses = "", False

    def answer(self, method: str, path: str, body: bytes) -> Any:
        if method == "PUT":
            self.blobs[path.rpartition("/")[2]] = body
            return {}
        lines = [json.loads(line) for line in body.splitlines() or [b"{}"]]
        asked = lines[0]
        if path in ("/api/repos/create", "/api/v1/models"):
            self.made.append(asked)
            return {"url": f"{self.url}/me/model", "Code": 200, "Success": True, "Data": {}}
        if "/preupload/" in path:
            large = [file["path"].endswith(".safetensors") for file in asked["files"]]
            return {
                "files": [
                    {
                        "path": file["path"],
                        "shouldIgnore": False,
                        "uploadMode": "lfs" if big else "regular",
                    }
                    for file, big in zip(asked["files"], large, strict=True)
                ]
            }
        if path.endswith("/objects/batch"):
            found = [
                {**each, "actions": {"upload": {"href": f"{self.url}/blob/{each['oid']}"}}}
                for each in asked["objects"]
            ]
            return {
                "objects": found,
                "Code": 200,
                "Success": True,
                "Data": {"objects": found},
                "transfer": "basic",
            }
        if path.endswith("/commit/main"):
            for line in lines[1:]:
                value = line["value"]
                self.files[value["path"]] = (
                    base64.b64decode(value["content"])
                    if line["key"] == "file"
                    else self.blobs[value["oid"]]
                )
            return {"commitOid": "a" * 40, "commitUrl": f"{self.url}/me/model/commit/a"}
        if path.endswith("/commit/master"):
            for each in asked["actions"]:
                self.files[each["path"]] = (
                    base64.b64decode(each["content"])
                    if each["type"] == "normal"
                    else self.blobs[each["sha256"]]
                )
        return {"Code": 200, "Success": True, "Data": {}}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "POST":
                stand_in.tokens.add(self.headers.get("Authorization"))
            missing = self.command in ("GET", "HEAD") and not stand_in.made
            code = 401 if stand_in.refuses else 404 if missing else 200
            text = json.dumps(stand_in.answer(self.command, self.path, body)).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", stand_in.url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", stand_in.url)
    for variable in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "MODELERS_TOKEN"):
        monkeypatch.setenv(variable, TOKEN)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield stand_in
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def made(lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("made") / "to"
    export(lora, "--to", "safetensors", "--output", to)
    return to


@pytest.mark.parametrize("name", ["hf", "modelscope"])
@pytest.mark.parametrize("private", [True, False])
def test_upload(hub: StandIn, lora: Path, made: Path, name: str, private: bool) -> None:
    flags = [] if private else ["--public"]
    target = f"{name}:me/model"
    done = export(lora, "--to", "safetensors", "--output", made, "--push", target, *flags)
    assert "me/model" in done.output
    assert TOKEN not in done.output
    assert hub.tokens == {f"Bearer {TOKEN}"}
    first = hub.made[0]
    is_private = {
        "hf": first.get("visibility") == "private",
        "modelscope": first.get("Visibility") == 1,
    }[name]
    assert is_private == private
    held = {str(p.relative_to(made)): p.read_bytes() for p in made.rglob("*") if p.is_file()}
    assert hub.files == held


def test_export_and_upload_in_one(hub: StandIn, full: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    export(full, "--to", "safetensors", "--output", to, "--push", "me/model")
    (tmp_path / "read.safetensors").write_bytes(hub.files["model.safetensors"])
    assert load_file(tmp_path / "read.safetensors").keys()
    text = hub.files["README.md"].decode()
    head = yaml.safe_load(text.split("---")[1])
    assert head == {"library_name": "transformers", "tags": ["tunewright"]}
    for part in ("# run\n", "sft: 2 steps over 2 rows", "- `rows.jsonl`", "- torch ", "tolerance"):
        assert part in text, part
    assert str(full.parent) not in text + hub.files["export.json"].decode()


def test_the_card_names_a_base_model_of_a_hub(lora: Path, tmp_path: Path) -> None:
    from tunewright_export.card import write_card

    state = json.loads((lora / "run.json").read_text("utf-8"))
    state["recipe"]["model"] = "org/base"
    (tmp_path / "adapter_config.json").write_text("{}")
    write_card(tmp_path, state, {"format": "adapter", "options": {}, "verified": False})
    head = yaml.safe_load((tmp_path / "README.md").read_text("utf-8").split("---")[1])
    assert head["base_model"] == "org/base"
    assert head["library_name"] == "peft"


def test_modelers(lora: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    double = SimpleNamespace(
        create_repo=lambda *args, **more: calls.append((args, more)),
        upload_folder=lambda **more: calls.append(more),
        __spec__=SimpleNamespace(),
    )
    monkeypatch.setitem(sys.modules, "openmind_hub", double)
    monkeypatch.setenv("MODELERS_TOKEN", TOKEN)
    export(lora, "--to", "safetensors", "--output", made, "--push", "modelers:me/model")
    (names, first), second = calls
    assert names == ("me/model",)
    assert first == {"token": TOKEN, "private": True, "exist_ok": True}
    assert (second["repo_id"], second["folder_path"]) == ("me/model", made)


def test_what_a_hub_refuses(hub: StandIn, lora: Path, made: Path) -> None:
    hub.refuses = True
    with pytest.raises(RunError, match="cannot be uploaded to Hugging Face") as caught:
        export(lora, "--to", "safetensors", "--output", made, "--push", "hf:me/model")
    assert TOKEN not in str(caught.value)
    assert "--push takes one that exists" in str(caught.value)


def test_a_token_in_a_message_is_hidden(
    lora: Path, made: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(f"header Authorization: Bearer {TOKEN}")

    monkeypatch.setattr(HfApi, "create_repo", fail)
    with pytest.raises(RunError) as caught:
        export(lora, "--to", "safetensors", "--output", made, "--push", "hf:me/model")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("huggingface:me/model", "no hub is called 'huggingface'"),
        ("hf:model", "expected hf:ORG/NAME"),
        ("hf:me/model/more", "expected hf:ORG/NAME"),
        ("modelers:me/model", r"openmind_hub is not installed"),
        ("modelscope:me/model", "MODELSCOPE_API_TOKEN is not set"),
    ],
)
def test_nothing_is_exported_for_a_wrong_target(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    with pytest.raises(RecipeError, match=message):
        export(full, "--to", "safetensors", "--output", tmp_path / "to", "--push", target)
    assert not list(tmp_path.iterdir())


def test_another_format_is_not_uploaded(lora: Path, made: Path, hub: StandIn) -> None:
    with pytest.raises(RecipeError, match="exists already"):
        export(lora, "--to", "fp8", "--output", made, "--push", "hf:me/model")
    assert not hub.made
