"""CPU time of the server around the engine, against a bare Starlette app that sends the same bytes.

    python tests/bench/serve_http.py [--requests 160] [--repeats 25] [--write]

Both servers run as processes of their own, on one event loop with the same uvicorn. Both wait for
the same scripted engine: 32 pieces for each request, one each 2 ms, from a thread whose CPU time is
not counted. The bare app reads the body, parses it as JSON, gives a listener to that engine, waits
in the event loop until the pieces have come, and sends the bytes that ours sent: the whole body
after the last piece, or a chunk for each piece. It checks nothing, parses no reply, and does not
look whether its client is still there. Eight clients ask one request after the other, the same
requests of both. Prints CPU milliseconds a request, and fails if ours takes over 1.5 times as many.
--write puts the table into docs/decisions/0012-slot-scheduler.md.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import uvicorn
from page import write_table
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tunewright.inference import (
    EngineStats,
    GenerateRequest,
    InferenceEngine,
    Piece,
    SamplingDefaults,
)
from tunewright_hf.templates.info import TemplateInfo
from tunewright_serve.server import Server, bound_socket
from tunewright_serve.service import Limits, Service

PAGE = "docs/decisions/0012-slot-scheduler.md"
HEADING = """\
| reply | ours, ms | bare, ms | ratio |
|---|---|---|---|"""
CLIENTS, PIECES, PAUSE, GOAL = 8, 32, 0.002, 1.5
PATH = "/v1/chat/completions"
BODY = {
    "model": "m",
    "temperature": 0.7,
    "max_tokens": 64,
    "messages": [
        {"role": "system", "content": "You answer in short sentences. " * 10},
        {"role": "user", "content": "What is the capital of Norway? " * 8},
    ],
}


class PacedEngine(InferenceEngine):
    """Says the same piece to all, step by step. cpu: seconds of its thread."""

    models, max_length = ("m",), 4096
    features, defaults = frozenset({"generation"}), SamplingDefaults()

    def __init__(self) -> None:
        self._answers: list[list[Any]] = []
        self._lock, self.cpu = threading.Lock(), 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, request: GenerateRequest, listener: Callable[[Piece], None]) -> Any:
        with self._lock:
            self._answers.append([0, listener])
        return self

    prompt_tokens = 40

    def cancel(self) -> None: ...

    def encode(self, request: GenerateRequest) -> list[int]:
        return [1] * 40

    def decode(self, ids: list[int]) -> str:
        return "x"

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self, seconds: float = 0.0) -> None: ...

    def _run(self) -> None:
        while True:
            with self._lock:
                answers = list(self._answers)
            for each in answers:
                each[0] += 1
                last = each[0] > PIECES
                each[1](
                    Piece(
                        "" if last else " word", "stop" if last else None, completion_tokens=each[0]
                    )
                )
                if last:
                    with self._lock:
                        self._answers.remove(each)
            self.cpu = time.thread_time()
            time.sleep(PAUSE)


def ours(port: int) -> None:
    engine = PacedEngine()
    info = TemplateInfo(stop=("</s>",))  # has_quick_prompts: as with the families' templates
    service = Service(engine, info, {"m": "m"}, Limits(), has_quick_prompts=True)
    threading.Thread(target=tell, args=(lambda: engine.cpu,), daemon=True).start()
    with bound_socket("127.0.0.1", port) as bound:
        Server(service, token="t").run(sockets=[bound])


def bare(port: int) -> None:
    sent: dict[bool, list[bytes]] = {
        stream: [chunk.encode() for chunk in chunks]
        for stream, chunks in zip((False, True), json.loads(sys.stdin.readline()), strict=True)
    }
    engine = PacedEngine()

    async def answer(request: Request) -> Response:
        stream = bool(json.loads(await request.body()).get("stream"))
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()
        if stream:
            engine.submit(
                GenerateRequest(), lambda p: loop.call_soon_threadsafe(pieces.put_nowait, p)
            )
            return StreamingResponse(chunks(pieces), media_type="text/event-stream")
        engine.submit(
            GenerateRequest(),
            lambda p: p.finish_reason and loop.call_soon_threadsafe(pieces.put_nowait, p),
        )
        await pieces.get()
        return Response(sent[False][0], media_type="application/json")

    async def chunks(pieces: asyncio.Queue[Piece]) -> AsyncIterator[bytes]:
        said = iter(sent[True])
        for chunk in said:
            piece = await pieces.get()
            yield chunk
            if piece.finish_reason:
                yield b"".join(said)

    app = Starlette(routes=[Route(PATH, answer, methods=["POST"])])
    threading.Thread(target=tell, args=(lambda: engine.cpu,), daemon=True).start()
    how: dict[str, Any] = {"access_log": False, "server_header": False, "lifespan": "off"}
    config = uvicorn.Config(app, log_level="warning", ws="none", **how)  # as ours
    with bound_socket("127.0.0.1", port) as bound:
        uvicorn.Server(config).run(sockets=[bound])


def tell(cpu: Callable[[], float]) -> None:
    """Write the process' CPU seconds but the engine's, for each line of standard input."""
    for _ in sys.stdin:
        print(time.process_time() - cpu(), flush=True)


async def ask(port: int, count: int, stream: bool) -> list[bytes]:
    """Send requests over one connection. Returns the chunks of the last response's body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(BODY | {"stream": stream}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer t\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    chunks: list[bytes] = []
    for _ in range(count):
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 OK" in answer, answer
        headers = answer.decode().lower()
        if "content-length: " in headers:
            length = int(headers.split("content-length: ")[1].split("\r\n")[0])
            chunks = [await reader.readexactly(length)]
            continue
        chunks = []
        while size := int(await reader.readline(), 16):
            chunks.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
    writer.close()
    return chunks


async def load(port: int, requests: int, stream: bool) -> list[bytes]:
    found = await asyncio.gather(*(ask(port, requests // CLIENTS, stream) for _ in range(CLIENTS)))
    return found[0]


class Running:
    def __init__(self, kind: str, first: str = "") -> None:
        with bound_socket("127.0.0.1", 0) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, __file__, "--serve", kind, str(self.port)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if first:
            self._write(first)
        while not any(
            c.status == "LISTEN" for c in psutil.Process(self.process.pid).net_connections()
        ):
            time.sleep(0.1)

    def _write(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def cpu(self) -> float:
        self._write("")
        assert self.process.stdout
        return float(self.process.stdout.readline())

    def measure(self, requests: int, stream: bool) -> float:
        """CPU milliseconds of a request."""
        before = self.cpu()
        asyncio.run(load(self.port, requests, stream))
        return 1000 * (self.cpu() - before) / requests


def measure_http(requests: int, repeats: int) -> tuple[list[str], list[str]]:
    """Print the cost of a request. Returns the table, and the goals that were missed."""
    mine = Running("ours")
    sample = [asyncio.run(ask(mine.port, 3, stream)) for stream in (False, True)]
    plain = Running("bare", json.dumps([[chunk.decode() for chunk in each] for each in sample]))
    table, missed = HEADING.splitlines(), []
    print(HEADING)
    for stream in (False, True):
        name = "streamed" if stream else "whole"
        pairs = [(mine.measure(requests, stream), plain.measure(requests, stream))]
        pairs.clear()  # the first of both was slow
        for _ in range(repeats):
            pairs.append((mine.measure(requests, stream), plain.measure(requests, stream)))
        ratio = statistics.median(one / other for one, other in pairs)
        one, other = (statistics.median(costs) for costs in zip(*pairs, strict=True))
        table.append(f"| {name} | {one:.2f} | {other:.2f} | {ratio:.2f} |")
        print(table[-1], flush=True)
        if ratio > GOAL:
            missed.append(f"http, {name}: {ratio:.2f} times a bare app")
    for each in (mine, plain):
        each.process.kill()
        each.process.wait()
    return table, missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--write", action="store_true", help="put the table into its page")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        {"ours": ours, "bare": bare}[asked.serve[0]](int(asked.serve[1]))
    else:
        table, missed = measure_http(asked.requests, asked.repeats)
        if asked.write:
            how = f"python tests/bench/serve_http.py --repeats {asked.repeats}"
            write_table(PAGE, "serve_http", how, table)
        sys.exit("; ".join(missed) or 0)
