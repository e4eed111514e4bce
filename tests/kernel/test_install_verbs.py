"""`plugins search` and `plugins install`: over the shipped tables; pip is shown before it runs."""

import json
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest

from tunewright import cli_install, compatibility
from tunewright.errors import RecipeError, RunError
from workspace.members import members


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were run in place of pip."""
    found: list[list[str]] = []

    def run(command: list[str], check: bool) -> SimpleNamespace:
        found.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return found


PIP = [sys.executable, "-m", "pip", "install"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("qwen3", "tunewright-qwen"),
        ("adapter:lora", "tunewright-lora"),
        ("tunewright-sft", "tunewright-sft"),
        ("bundle:text", "tunewright-bundle-text"),
        ("tunewright[rl]", "tunewright-bundle-rl"),
        ("env.create", "tunewright-env"),
    ],
)
def test_a_name_becomes_a_command_that_is_shown_first(
    name: str, wanted: str, called: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    cli_install.install([name])
    assert called == [[*PIP, f"{wanted}==0.1.*"]]
    assert capsys.readouterr().out == f"$ {subprocess.list2cmdline(called[0])}\n"


def test_dry_run_only_shows(called: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    cli_install.install(["wandb"], dry_run=True)
    note, command = capsys.readouterr().out.splitlines()
    assert note.endswith("tunewright env create trackers")
    assert command.endswith(" -m pip install tunewright-wandb==0.1.*")
    assert called == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("alpaca", "write format:alpaca or template:alpaca|write template:alpaca or format:alpaca"),
        ("lroa", "did you mean 'lora'"),
        ("stage:lora", "installed with pip itself"),
        ("https://example.org/x.whl", "installed with pip itself"),
        ("--index-url=http://example.org", "installed with pip itself"),
        ("tunewright[everything]", "no plugin of Tunewright"),
    ],
)
def test_another_name_is_refused(name: str, problem: str, called: list[list[str]]) -> None:
    with pytest.raises(RecipeError) as error:
        cli_install.install([name])
    assert any(part in str(error.value) for part in problem.split("|"))
    assert called == []


def test_upgrade_takes_what_is_too_old(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility, "outdated", lambda: ["tunewright-sft", "tw-others"])
    monkeypatch.setattr(compatibility, "versions", lambda: {"tw-others": "1"})
    cli_install.install(upgrade=True)
    assert called == [[*PIP, "--upgrade", "tunewright-sft==0.1.*", "tw-others"]]
    monkeypatch.setattr(compatibility, "outdated", list)
    with pytest.raises(RecipeError, match="every plugin fits"):
        cli_install.install(upgrade=True)


def test_a_failing_pip_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=3))
    with pytest.raises(RunError, match="exit code 3"):
        cli_install.install(["lora"])


def test_an_environment_of_uv_is_installed_into(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright.cli_install.PathFinder.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/bin/uv" if name == "uv" else None)
    cli_install.install(["lora"])
    assert called[0][:5] == ["/bin/uv", "pip", "install", "--python", sys.executable]
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RecipeError, match="ensurepip"):
        cli_install.install(["lora"])


def test_search_finds_words_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    cli_install.search(["adapter", "DoRA"], as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["distribution"], row["installed"]) == ("lora", "tunewright-lora", True)
    cli_install.search(["bundle"])
    assert "tunewright-bundle-text" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="no known plugin"):
        cli_install.search(["knitting"])


def test_the_shipped_table_is_that_of_the_members() -> None:
    lists = __import__("make_lists")
    shipped = lists.DISTRIBUTIONS.read_text("utf-8")
    assert shipped == lists.distributions(), "run scripts/dev.py fix"
    assert set(tomllib.loads(shipped)) == {member.project["name"] for member in members()}
