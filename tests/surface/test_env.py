"""`tunewright env create | list | run`: environments from envs.toml."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tunewright import RecipeError, RunError
from tunewright_env import creation, environments
from tunewright_env.environments import Environment
from tunewright_env.launch import run_in
from workspace.members import members

OFFLINE = ["--no-index", "--find-links", "."]
SMALL = Environment("small", "For a test.", ["tunewright"], pip_options=OFFLINE)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_ENVS", str(tmp_path / "envs"))
    return tmp_path / "envs"


def tunewright(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunewright", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_an_overlay_sees_what_is_installed_and_is_made_once(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    creation.create_environment(SMALL)
    steps = capfd.readouterr().out.splitlines()
    assert [line[:5] for line in steps] == ["[1/3]", "[2/3]", "[3/3]", "small"]
    assert SMALL.folder == root / "small"
    program = "import sys, tunewright, pydantic; print(sys.prefix)"
    seen = subprocess.run(
        [SMALL.python, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert seen.strip() == str(SMALL.folder)
    own = subprocess.run([SMALL.bin / "tunewright", "plugins", "list"], capture_output=True)
    assert own.returncode == 0
    creation.create_environment(SMALL)
    assert capfd.readouterr().out.splitlines() == steps[-1:]
    changed = replace(SMALL, constraints=["numpy<3"])
    assert not changed.is_ready()
    assert SMALL.is_ready()


def test_what_fails_is_removed_and_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "_step", _without_venv(creation._step))
    wrong = replace(SMALL, packages=["no-such-package==1"])
    with pytest.raises(RunError) as failed:
        creation.create_environment(wrong)
    (line,) = failed.value.lines
    assert "ERROR: Could not find a version" in line
    assert "no-such-package==1" in line
    assert not wrong.folder.exists()


def _without_venv(step):
    """A venv takes seconds: its place is taken by this one's Python."""

    def quick(title, command):
        if "venv" in command:
            command[-1].joinpath("bin").mkdir(parents=True)
            command[-1].joinpath("bin/python").symlink_to(sys.executable)
        else:
            step(title, command)

    return quick


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_ctrl_c_leaves_nothing_half_made(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def stop(title: str, command: list[object]) -> None:
        SMALL.folder.joinpath("half").mkdir(parents=True)
        raise error

    monkeypatch.setattr(creation, "_step", stop)
    with pytest.raises((KeyboardInterrupt, RunError)):
        creation.create_environment(SMALL)
    assert not SMALL.folder.exists()


def test_what_was_killed_is_made_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = SMALL.folder / "lib/half"
    rest.mkdir(parents=True)
    monkeypatch.setattr(creation, "_create", lambda environment: environment.folder.mkdir())
    creation.create_environment(SMALL)
    assert SMALL.folder.is_dir()
    assert not rest.exists()


def test_two_do_not_create_the_same(root: Path) -> None:
    from filelock import FileLock

    root.mkdir()
    with FileLock(root / ".small.lock"), pytest.raises(RunError, match="another process"):
        creation.create_environment(SMALL)


def test_list_shows_every_environment() -> None:
    done = tunewright("env", "list")
    assert done.returncode == 0, done.stderr
    for name in environments.environments():
        assert f"{name} " in done.stdout
    assert "not created" in done.stdout


def test_an_unknown_name_is_one_line() -> None:
    done = tunewright("env", "create", "tracker")
    assert done.returncode == 2
    expected = "error: command line: there is no environment 'tracker' (did you mean 'trackers'?)\n"
    assert done.stderr == expected


def test_run_needs_it_to_be_created() -> None:
    done = tunewright("env", "run", "trackers", "--", "python", "-V")
    assert done.returncode == 1
    assert done.stderr.endswith("(tunewright env create trackers)\n")
    assert done.stderr.count("\n") == 1


def test_run_puts_its_programs_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(Environment, "is_ready", lambda self: True)
    SMALL.bin.mkdir(parents=True)
    program = SMALL.bin / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("os.execve", lambda *said: seen.update(zip("pae", said, strict=True)))
    run_in(SMALL, ["tool", "--help"])
    assert (seen["p"], seen["a"]) == (str(program), [str(program), "--help"])
    assert seen["e"]["VIRTUAL_ENV"] == str(SMALL.folder)
    with pytest.raises(RunError, match="no program 'no-such-tool'"):
        run_in(SMALL, ["no-such-tool"])


def test_env_alone_still_prints_versions() -> None:
    done = tunewright("env", "--json")
    assert '"tunewright"' in done.stdout


def test_the_version_sets_fit_the_members() -> None:
    """Each member with an environment is in it, and its libraries have a version that it allows."""
    found = environments.environments()
    for member in members():
        if not member.env:
            continue
        packages = {Requirement(p).name: Requirement(p) for p in found[member.env].packages}
        assert member.project["name"] in packages
        for need in map(Requirement, member.needs):
            if not need.name.startswith("tunewright"):
                (version,) = [each.version for each in packages[need.name].specifier]
                assert need.specifier.contains(version), need


def test_every_requirement_is_well_formed() -> None:
    for environment in environments.environments().values():
        assert environment.summary.endswith(".")
        for line in [*environment.packages, *environment.constraints]:
            Requirement(line)


def test_find_raises_for_an_unknown_name() -> None:
    with pytest.raises(RecipeError):
        environments.find("nothing")
