"""Checks 1 to 6: from the printed address to the first page."""

import socket
import subprocess
import sys
from collections.abc import Callable

from playwright.sync_api import Browser, expect

from browser.driver import Opened, opened
from browser.workbench import ENVIRONMENT, Workbench

Visit = Callable[..., Opened]
#: fails where the command line of `web` imports what only its server needs
_HELP = """
import sys
from tunewright import cli
sys.argv = ["tunewright", "web", "--help"]
try:
    cli.main()
except SystemExit:
    pass
found = {"starlette", "uvicorn", "jinja2", "torch"} & sys.modules.keys()
assert not found, found
"""


def test_01_the_printed_address_opens_the_runs(visit: Visit, workbench: Workbench) -> None:
    page = visit().page
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
    assert workbench.token not in page.url
    expect(page.get_by_role("link", name="greeter", exact=True)).to_be_visible()


def test_02_without_the_token_nothing_is_shown(browser: Browser, workbench: Workbench) -> None:
    with opened(browser, workbench.address) as found:
        for path in ("/", "/runs/greeter", "/settings", "/?token=wrong"):
            answer = found.page.goto(workbench.address + path)
            assert answer is not None and answer.status == 401
            text = found.page.content()
            assert "greeter" not in text and str(workbench.folder) not in text
            expect(found.page.get_by_text("open the address that")).to_be_visible()
        assert found.hosts == {"127.0.0.1"}


def test_03_an_empty_workspace_says_what_to_do(
    visit: Visit, own_workbench: Callable[..., Workbench]
) -> None:
    server = own_workbench(runs=False)
    page = visit("/", server).page
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    expect(page.get_by_role("main").get_by_role("link", name="New run").first).to_be_visible()
    page.get_by_role("button", name="quickstart").click()
    page.wait_for_url("**/new**")
    expect(page.get_by_role("heading", level=1)).to_contain_text("New run")


def test_05_help_imports_no_server() -> None:
    command = [sys.executable, "-c", _HELP]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "--port" in done.stdout


def test_06_a_taken_port_is_said_with_a_free_one(workbench: Workbench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "tunewright", "web", "--port", port]
        done = subprocess.run(
            command,
            cwd=workbench.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: cannot be bound" in done.stderr
    assert "is free" in done.stderr
    assert "Traceback" not in done.stderr
