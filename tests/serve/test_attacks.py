"""Hostile requests: refused with an error of the wire, quickly, and the server goes on."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from serve.serving import HELLO, TOKEN, Running, scripted
from tunewright_serve import server

CHAT = "/v1/chat/completions"
URLS = [
    "file:///etc/passwd",
    "/etc/passwd",
    "../../etc/passwd",
    "http://127.0.0.1:1/x.png",
    "http://localhost./",
    "http://0x7f.1/",
    "http://2130706433/",
    "http://[::ffff:127.0.0.1]/a",
    "http://[64:ff9b::7f00:1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://good.com\\@127.0.0.1/",
    "https://a@b@c/",
    "data:text/html;base64,AAAA",
    "data:image/svg+xml,<svg/>",
]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with scripted("ok", body=100_000, body_seconds=0.5) as made:
        yield made


@pytest.fixture(autouse=True)
def goes_on(running: Running) -> Iterator[None]:
    """After each attack the server answers, and nothing of the attack reached the engine."""
    before = len(running.engine.asked)
    yield
    assert len(running.engine.asked) == before
    assert running.chat().status == 200
    running.until_idle()


def refused(reply: Any, status: int = 400) -> str:
    """The message of an error in OpenAI's form that shows nothing of the inside."""
    assert reply.status == status, reply.data
    error = reply.error
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in error["message"] and "site-packages" not in error["message"]
    return str(error["message"])


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("kind", ["image_url", "video_url"])
def test_urls_are_not_fetched_and_told_apart_in_nothing(
    running: Running, url: str, kind: str
) -> None:
    content = [{"type": kind, kind: {"url": url}}]
    said = refused(running.chat(messages=[{"role": "user", "content": content}]))
    assert said == f"messages[0]: this server takes text only, and no {kind}"


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 100_000},
        {"n": 0},
        {"n": True},
        {"max_tokens": 10**12},
        {"max_tokens": -1},
        {"temperature": 1e9},
        {"temperature": "0"},
        {"top_p": 0},
        {"top_logprobs": 500, "logprobs": True},
        {"stop": ["x"] * 10_000},
        {"logit_bias": {"1": 1000}},
        {"logit_bias": {"-1": 1}},
        {"seed": 2**70},
        {"messages": []},
        {"messages": "x"},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": [{"role": "user", "content": 3}]},
        {"messages": [{"role": "user", "content": None}]},
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        {"tools": [{"type": "function", "function": {"name": "a"}}] * 2},
        {"tools": [{"type": "function", "function": {"name": f"a{n}"}} for n in range(300)]},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_values_out_of_range(running: Running, fields: dict[str, Any]) -> None:
    for stream in (False, True):  # never a 200 that breaks off
        said = refused(running.chat(stream=stream, **fields))
        assert next(iter(fields)) in said and len(said) < 500


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"messages": NaN}',
        b'{"temperature": 1e999, "messages": [{"role": "user", "content": "a"}]}',
        b'{"model": "\\ud800", "messages": []}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b"[" * 50_000,
        b"[" * 40_000 + b"]" * 40_000,
        b'{"messages": ' + b'{"a":' * 200 + b"1" + b"}" * 201,
    ],
    ids=lambda body: str(body[:20]),
)
def test_bodies_that_are_no_request(running: Running, body: bytes) -> None:
    started = time.monotonic()
    for path in (CHAT, "/v1/completions", "/v1/embeddings", "/tokenize"):
        refused(running.ask(path, body))
    assert running.ask("/v1/messages", body).json["type"] == "error"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "value", [b"NaN", b"-Infinity", b'"\\ud800"', b'"\xed\xa0\x80"', b"9" * 5000]
)
def test_values_of_no_json_in_free_fields(running: Running, value: bytes) -> None:
    head = b'{"model": "m", "messages": [{"role": "user", "content": "a"}], '
    refused(running.ask(CHAT, head + b'"chat_template_kwargs": {"a": ' + value + b"}}"))


def test_deep_values_in_free_fields(running: Running) -> None:
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"a": deep}
    assert "levels" in refused(running.chat(chat_template_kwargs=deep))


def sent(running: Running, head: str, body: bytes = b"", wait: float = 5) -> bytes:
    """Answer that a raw socket gets."""
    address = running.address.removeprefix("http://")
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        text = f"POST {CHAT} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n{head}"
        connection.sendall(text.encode() + body)
        return connection.recv(4096)


@pytest.mark.parametrize("length", [200_000_000, 9_999_999_999])
def test_a_body_of_megabytes_is_refused_at_once(running: Running, length: int) -> None:
    """A data: URL of 200 MB too."""
    url = b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:'
    started = time.monotonic()
    answer = sent(running, f"Content-Length: {length}\r\n\r\n", url)
    assert b" 413 " in answer.split(b"\r\n")[0] and b"connection: close" in answer.lower()
    assert time.monotonic() - started < 0.4


def test_a_body_that_is_longer_than_it_says_nothing_about(running: Running) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = sent(running, "Transfer-Encoding: chunked\r\n\r\n", chunk * 2)
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_a_body_that_does_not_come(running: Running) -> None:
    answer = sent(running, "Content-Length: 10\r\n\r\n", b"{")
    assert b" 408 " in answer.split(b"\r\n")[0]


def test_a_compressed_body_is_not_taken(running: Running) -> None:
    reply = running.ask(CHAT, b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert "compressed" in refused(reply, 415)


def test_headers_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)
    with scripted("ok") as own:
        assert sent(own, "X-Slow: ") == b""  # closed
        assert own.chat().status == 200


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Authorization": None}, CHAT, 401),
        ({"Authorization": "Bearer x"}, CHAT, 401),
        ({"Authorization": f"Basic {TOKEN}"}, CHAT, 401),
        ({"Authorization": "Bearer é"}, CHAT, 401),
        ({"Authorization": None}, f"{CHAT}?api_key={TOKEN}", 401),
        ({"Authorization": None}, "/v1/nothing", 401),
        ({"Host": "evil.example"}, CHAT, 403),
        ({"Host": "127.0.0.1.evil.example"}, CHAT, 403),
        ({"Host": "localhost.evil.example"}, CHAT, 403),
        ({"Host": "[::1"}, CHAT, 403),
        ({"Host": ""}, CHAT, 403),
        ({"Host": "evil.example"}, "/health", 403),
        ({"Origin": "https://evil.example"}, CHAT, 403),
        ({"Origin": "null"}, CHAT, 403),
        ({"Origin": "http://127.0.0.1:1"}, CHAT, 403),
    ],
    ids=str,
)
def test_who_may_ask(running: Running, headers: Any, path: str, status: int) -> None:
    headers = {k: v.encode() if v else v for k, v in headers.items()}
    body = {"model": "m", "messages": HELLO}
    reply = running.ask(path, body if path != "/health" else None, headers=headers)
    assert TOKEN not in refused(reply, status)
    assert "access-control-allow-origin" not in reply.headers


def test_its_own_pages_and_other_names_may_ask(running: Running) -> None:
    asked = {"Origin": running.address}
    assert running.ask("/v1/models", headers=asked).status == 200
    assert running.ask("/v1/models", headers={"Host": "localhost:1"}).status == 200
    assert (
        running.ask("/v1/models", headers={"Authorization": None, "x-api-key": TOKEN}).status == 200
    )
    preflight = running.ask(CHAT, method="OPTIONS", headers=asked)
    assert preflight.status == 405 and "access-control-allow-origin" not in preflight.headers
    with scripted("ok", hosts=("gpu.example",), token=None) as own:
        named = {"Host": "gpu.example:80", "Authorization": None}
        assert own.ask("/v1/models", headers=named).status == 200


def test_methods_and_paths(running: Running) -> None:
    refused(running.ask(CHAT), 405)
    refused(running.ask("/v1/nothing", {}), 404)
    refused(running.ask("/v1/models", {}), 405)


def test_output_of_models_is_json_in_json(running: Running) -> None:
    text = '<img src=x onerror=alert(1)> \x1b[31m "\r\n\r\ndata: {}'
    with scripted([text]) as own:
        reply = own.chat(stream=True)
        events = [each for each in reply.data.split(b"\n\n") if each]
        assert all(each.startswith(b"data: ") for each in events)
        content = [json.loads(each[6:]) for each in events[:-1]]
        said = "".join(e["choices"][0]["delta"].get("content") or "" for e in content)
        assert said == text and own.chat().json["choices"][0]["message"]["content"] == text
