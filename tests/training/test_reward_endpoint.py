"""Rewards that an endpoint gives."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from test_rewards import load, scores

from tunewright import RunError


class Endpoint(BaseHTTPRequestHandler):
    """Answers as the path says, and remembers what it was asked."""

    asked: ClassVar[list[tuple]] = []

    def do_POST(self):
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((given, self.headers.get("Authorization"), self.headers["Content-Type"]))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/rewards")
            self.end_headers()
            return
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()
        if self.path == "/slow":
            threading.Event().wait(1)
        lengths = [len(text) if text else None for text in given["completions"]]
        answers = {"/text": b"7", "/list": b"[1, 2]", "/word": b'{"rewards": "12"}'}
        self.wfile.write(answers.get(self.path, json.dumps({"rewards": lengths}).encode()))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_rewards_of_an_endpoint(endpoint, monkeypatch):
    monkeypatch.setenv("REWARD_TOKEN", "a secret")
    asked = load(
        {"name": "http", "url": f"{endpoint}/rewards", "token_variable": "REWARD_TOKEN"}, ""
    )
    found = asked(["four", "", "é"], {"prompts": ["a", "b", "c"], "answer": [1, 2, 3]})
    assert found[::2] == [4, 1]
    assert math.isnan(found[1])
    given, authorization, kind = Endpoint.asked[-1]
    assert given == {"prompts": ["a", "b", "c"], "completions": ["four", "", "é"]}
    assert (authorization, kind) == ("Bearer a secret", "application/json")
    scores("http", ["a"], {"prompts": ["b"]}, url=f"{endpoint}/rewards")
    assert Endpoint.asked[-1][1] is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/broken", "answers 500 Internal Server Error"),
        ("/moved", "answers 302 Found"),
        ("/slow", "timed out"),
        ("/text", "is not JSON of the form"),
        ("/list", "is not JSON of the form"),
        ("/word", "`rewards` is no list"),
    ],
)
def test_an_endpoint_that_fails_is_named(endpoint, path, problem):
    asked = load(
        {"name": "http", "url": endpoint + path, "timeout": 0.2 if path == "/slow" else 30}, ""
    )
    before = len(Endpoint.asked)
    with pytest.raises(RunError, match=problem) as found:
        asked(["a"], {"prompts": ["b"]})
    assert f"{endpoint}{path}" in str(found.value)
    assert str(found.value).startswith("reward http: ")
    assert len(Endpoint.asked) == before + 1  # no redirect is followed


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "file:///etc/passwd"}, "begins with http"),
        ({"url": "ftp://a.host/x"}, "begins with http"),
        ({"url": "rewards"}, "begins with http"),
        ({"url": "http://me:hush@a.host/"}, "give no password"),
        ({"token_variable": "NO_SUCH_TOKEN"}, "NO_SUCH_TOKEN holds no token"),
        ({"url": "http://127.0.0.1:1/x"}, "http://127.0.0.1:1/x: .*refused"),
    ],
)
def test_addresses_that_are_no_good(options, problem):
    with pytest.raises(RunError, match=problem) as found:
        load({"name": "http", **options}, "")(["a"], {"prompts": ["b"]})
    assert "hush" not in str(found.value)
