"""Fixtures of the tests of the web workbench."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tunewright_web.start import Settings, guarded, opened
from tunewright_web.web import Web

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def web(tmp_path: Path) -> Web:
    """The workbench of an empty workspace."""
    return opened(Settings(tmp_path))


@pytest.fixture
def client(web: Web) -> Iterator[TestClient]:
    """A browser that has the token, without starting a process. Jobs are not started."""
    app = guarded(web, TOKEN, Settings(web.workspace.root))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app, "http://127.0.0.1", headers=headers, follow_redirects=False) as made:
        yield made
