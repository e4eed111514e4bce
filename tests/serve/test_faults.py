"""Clients that leave or do not read, engines that fail, many at once, and memory."""

import gc
import http.client
import json
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_setup import INFO, opened, real
from serve.serving import HELLO, TOKEN, Running, scripted, served

CHAT = "/v1/chat/completions"


def begun(running: Running, **fields: Any) -> http.client.HTTPConnection:
    """A connection that has sent its request, and has read nothing."""
    host = running.address.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    body = json.dumps({"model": "m", "messages": HELLO} | fields)
    head = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", CHAT, body, head)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_when_its_client_leaves(stream: bool) -> None:
    with scripted(["word "] * 10, by_hand=True) as running:
        connection = begun(running, stream=stream, n=2)
        while running.engine.stats().running < 2:
            time.sleep(0.01)
        running.engine.step()
        if stream:
            assert connection.getresponse().read1().startswith(b"data: ")
        connection.sock.close() if connection.sock else connection.close()
        connection.close()
        end = time.monotonic() + 5
        while running.service.open_requests:
            assert time.monotonic() < end
            time.sleep(0.01)
        running.engine.step()  # one step later its slots are free
        assert running.engine.stats().running == 0 and running.engine.cancelled == 2
        assert running.service.metrics.gone == 1


def test_a_client_that_does_not_read_is_cancelled_and_holds_up_nobody() -> None:
    pieces = ["x" * 10_000] * 3000
    with scripted(lambda request: pieces if request.max_new_tokens is None else "ok") as running:
        host, port = running.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            body = json.dumps({"model": "m", "messages": HELLO, "stream": True}).encode()
            head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
            reader.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            end = time.monotonic() + 10
            while not running.engine.cancelled:
                assert running.chat(max_tokens=3).status == 200
                assert time.monotonic() < end
        running.until_idle()


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_says_so_and_goes_on(stream: bool) -> None:
    with scripted([ValueError("secret")], "fine") as running:
        reply = running.chat(stream=stream)
        assert reply.status == 500 and "the engine failed" in reply.error["message"]
        assert b"secret" not in reply.data
        assert running.chat().json["choices"][0]["message"]["content"] == "fine"


def test_an_engine_that_fails_in_the_middle_of_a_stream() -> None:
    with scripted(["a", ValueError("secret")], by_hand=True) as running:
        connection = begun(running, stream=True)
        while not running.engine.step():
            time.sleep(0.01)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read1().startswith(b"data: ")
        running.engine.step()
        rest = answer.read()
        connection.close()
    events = rest.split(b"\n\n")
    assert events[-3].startswith(b'data: {"error"') and events[-2] == b"data: [DONE]"
    assert b"secret" not in rest


def test_an_engine_that_is_closed() -> None:
    with scripted("ok") as running:
        running.engine.close()
        assert (running.chat().status, running.chat().error["code"]) == (503, "engine_unavailable")


def test_an_engine_with_a_bug_shows_nothing_of_it() -> None:
    with scripted("ok") as running:
        running.engine.submit = lambda *_: 1 / 0
        reply = running.chat(stream=True)
    assert reply.status == 500 and reply.error["message"] == "internal error: ZeroDivisionError"


def test_a_full_queue() -> None:
    with scripted("ok", by_hand=True, slots=1, max_waiting=1, requests=3) as running:
        waiting = [begun(running) for _ in range(2)]
        while running.engine.stats().waiting < 1:
            time.sleep(0.01)
        started = time.monotonic()
        by_engine = running.chat()
        assert by_engine.status == 429 and by_engine.headers["retry-after"] == "1"
        assert time.monotonic() - started < 1
        for connection in waiting:
            connection.close()
    with scripted("ok", by_hand=True, requests=1) as running:
        waiting = [begun(running)]
        while not running.engine.stats().running:
            time.sleep(0.01)
        by_server = running.chat(stream=True)
        assert (by_server.status, by_server.error["code"]) == (429, "queue_full")
        waiting[0].close()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long(stream: bool) -> None:
    with scripted(["a"] * 9, by_hand=True, answer_seconds=0.3, quiet_seconds=0.1) as running:
        reply = running.chat(stream=stream)
        running.engine.step()
        assert running.engine.cancelled == 1
    if stream:  # the first comment has been sent
        assert b": keep-alive\n\n" in reply.data and b'"code":"timeout"' in reply.data
    else:
        assert (reply.status, reply.error["code"]) == (504, "timeout")


def test_what_is_cut_off_at_the_end_of_the_server_is_an_error() -> None:
    with scripted(["a"] * 1000, by_hand=True) as running:
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(running.chat()))
        asking.start()
        while not running.engine.stats().running:
            time.sleep(0.01)
        running.engine.close()
        asking.join()
    assert (found[0].status, found[0].error["code"]) == (503, "cancelled")


@pytest.mark.parametrize("clients", [32, pytest.param(128, marks=pytest.mark.long)])
def test_many_clients_at_once(clients: int) -> None:
    def ask(number: int) -> str:
        reply = running.chat(
            messages=[{"role": "user", "content": f"{number}"}], stream=bool(number % 2)
        )
        assert reply.status == 200
        if number % 2:
            lines = reply.data.split(b"\n\n")[:-2]  # comments of a stream that waits among them
            events = [json.loads(line[6:]) for line in lines if line.startswith(b"data:")]
            return "".join(e["choices"][0]["delta"].get("content") or "" for e in events)
        return str(reply.json["choices"][0]["message"]["content"])

    def script(request: Any) -> list[str]:
        return [f"{request.conversation.messages[-1].content} "] * 20

    with scripted(script) as running, ThreadPoolExecutor(clients) as pool:
        started = time.monotonic()
        for number, said in enumerate(pool.map(ask, range(10 * clients))):
            assert said == f"{number} " * 20
        assert time.monotonic() - started < 2 * clients
        running.until_idle()


@pytest.mark.parametrize("requests", [600, pytest.param(5_000, marks=pytest.mark.long)])
def test_memory_does_not_grow_with_requests(requests: int) -> None:
    def many(count: int) -> int:
        for number in range(count):
            assert running.chat(stream=bool(number % 2), user="x" * 1000).status == 200
            running.chat(temperature=-1)
        running.engine.asked.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    with scripted("one two three") as running:
        tracemalloc.start()
        try:
            many(50)
            before = many(100)
            after = many(requests // 2)  # two a round
        finally:
            tracemalloc.stop()
    assert after - before < 300_000, after - before  # of requests of some kB each


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux' /proc")
def test_memory_of_the_engine_does_not_grow_with_requests() -> None:
    """Tensors, too: the engine hf with a tiny model, prompts of many lengths, cancelled answers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other on a loaded machine take hours

    def many(count: int) -> int:
        for number in range(count):
            text = f"{number} " * (1 + number % 20)
            stream = bool(number % 3)
            body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8}
            if number % 7:
                assert running.chat(stream=stream, **body).status == 200
            else:
                begun(running, stream=stream, **body).close()
        running.until_idle(60)
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    engine = opened(real(), cache_tokens=4096)
    try:
        with served(engine, info=INFO) as running:
            many(500)
            before = many(500)
            after = many(4_000)
    finally:
        torch.set_num_threads(threads)
    assert after - before < 20_000_000, after - before
