"""One browser, one trained workspace and one server for all tests."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser

from browser.driver import Opened, chromium, opened
from browser.talker import talker
from browser.workbench import Workbench, make_workspace


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    """A workspace with two runs, trained once for all of pytest's processes. Not to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    folder = shared / "workspace"
    with FileLock(shared / "workspace.lock"):
        if not (folder / "runs/longer/run.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            make_workspace(folder)
    return folder


@pytest.fixture(scope="session")
def workbench(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """A server on a copy of the trained workspace."""
    folder = tmp_path_factory.mktemp("workbench") / "workspace"
    shutil.copytree(trained, folder)
    found = Workbench(folder)
    found.start()
    yield found
    found.stop()
    found.end_jobs()


@pytest.fixture
def own_workbench(trained: Path, tmp_path: Path) -> Iterator[Callable[..., Workbench]]:
    """own_workbench(argument, …, runs=True, VARIABLE=…): a server of the test's own."""
    started: list[Workbench] = []

    def start(*arguments: str, runs: bool = True, **environment: str) -> Workbench:
        folder = tmp_path / f"workspace{len(started)}"
        ignored = () if runs else ("runs", "recipe.yaml")
        shutil.copytree(trained, folder, ignore=shutil.ignore_patterns(*ignored))
        found = Workbench(folder, arguments, environment)
        started.append(found)
        found.start()
        return found

    yield start
    for each in started:
        each.stop()
        each.end_jobs()


@pytest.fixture
def visit(browser: Browser, workbench: Workbench) -> Iterator[Callable[..., Opened]]:
    """visit(path, …): a page of the server, with the token. Afterwards: its console was silent, and
    no other host was asked. how: of `driver.opened`; server: another one."""
    with ExitStack() as stack:
        pages: list[Opened] = []

        def go(path: str = "/", server: Workbench = workbench, **how: object) -> Opened:
            found = stack.enter_context(opened(browser, server.address, **how))
            pages.append(found)
            server.enter(found.page, path)
            return found

        yield go
        for each in pages:
            each.assert_quiet()


@pytest.fixture(scope="module")
def scripted(workbench: Workbench) -> Iterator[dict[str, str]]:
    """The model of a run, answered for by the stand-in for vLLM."""
    with talker(workbench.folder / "runs/greeter") as address:
        yield {"run": "greeter", "engine": "vllm", "address": address}
