"""The conformance suite on rewards that need more than it can give: an endpoint, a reward model."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tunewright.recipe import Recipe
from tunewright.types import LoadedModel
from tunewright_conformance import reward
from tunewright_conformance.bench import a_model
from tunewright_conformance.doubles import RECIPE, FakeRun
from tunewright_conformance.trial import go, recipe


class Lengths(BaseHTTPRequestHandler):
    """Answers with the length of each completion."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"rewards": [len(text) for text in asked["completions"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not to the terminal."""


class TestHttp(reward.TestReward):
    plugin = "http"

    @pytest.fixture
    def further_options(self, address: str) -> dict[str, Any]:
        return {"url": address}

    @pytest.fixture
    def address(self) -> Iterator[str]:
        server = HTTPServer(("127.0.0.1", 0), Lengths)
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a reward model."""
    folder = tmp_path_factory.mktemp("reward")
    go(recipe({"name": "reward"}, "preference", folder, 8, max_steps=2))
    return folder / "run"


class TestRewardModel(reward.TestReward):
    plugin = "reward_model"

    @pytest.fixture
    def run(self, trained: Path) -> FakeRun:
        training = {"precision": "fp32"}
        return FakeRun(trained, recipe=Recipe.model_validate({**RECIPE, "training": training}))

    @pytest.fixture
    def policy(self, tmp_path: Path) -> LoadedModel:
        return a_model(tmp_path)
