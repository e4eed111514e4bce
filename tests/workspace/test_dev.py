"""scripts/dev.py installs what has changed, and nothing else; the other scripts do what their first
line says."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from workspace.members import ROOT, members, script

MEMBER = '[project]\nname = "{name}"\nversion = "0.1.0"\ndescription = "Nothing."\n'
BACKEND = '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """dev.py in a workspace of two members, where steps are noted and not run."""
    for name in ("one", "two"):
        tmp_path.joinpath(name).mkdir()
        tmp_path.joinpath(name, "pyproject.toml").write_text(MEMBER.format(name=name))
    tmp_path.joinpath("requirements.txt").write_text("# members\n-e ./one\n-e ./two\n")
    tmp_path.joinpath("requirements-envs.txt").write_text("# members\n")
    tmp_path.joinpath("constraints.txt").write_text("pluggy==1.7.0\n")
    module = script("dev")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "STAMP", tmp_path / "stamp.json")
    module.steps = []
    monkeypatch.setattr(
        module, "step", lambda title, command: module.steps.append([str(c) for c in command])
    )
    return module


def test_members_are_those_of_requirements() -> None:
    dev = script("dev")
    listed = [*dev.members(), *dev.without_libraries()]
    assert listed == [member.project["name"] for member in members()]


def test_second_install_does_nothing(dev: ModuleType) -> None:
    dev.install()
    assert dev.steps
    dev.steps.clear()
    dev.install()
    assert dev.steps == []


def test_the_schema_that_examples_name_is_written(tmp_path: Path) -> None:
    dev, schema = script("dev"), tmp_path / "recipe.schema.json"
    subprocess.run([sys.executable, "-c", dev.WRITE_SCHEMA, schema], check=True)
    assert json.loads(schema.read_text("utf-8"))["title"] == "Recipe"


@pytest.mark.parametrize("file", ["one/pyproject.toml", "requirements.txt", "constraints.txt"])
def test_a_change_installs_again(dev: ModuleType, file: str) -> None:
    dev.install()
    dev.steps.clear()
    with (dev.ROOT / file).open("a") as stream:
        stream.write("# changed\n")
    dev.install()
    assert any("two" in command for command in dev.steps)


def test_interrupted_install_is_not_taken_for_done(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev.install()
    (dev.ROOT / "constraints.txt").write_text("pluggy==1.7.1\n")

    def fail(title: str, command: list[object]) -> None:
        raise SystemExit(1)

    with monkeypatch.context() as patch:
        patch.setattr(dev, "step", fail)
        with pytest.raises(SystemExit):
            dev.install()
    (dev.ROOT / "constraints.txt").write_text("pluggy==1.7.0\n")
    dev.steps.clear()
    dev.install()
    assert dev.steps


def test_a_member_that_is_gone_is_uninstalled(dev: ModuleType) -> None:
    dev.install()
    (dev.ROOT / "requirements.txt").write_text("-e ./one\n")
    dev.install()
    assert [command[-1] for command in dev.steps if "uninstall" in command] == ["two"]
    assert json.loads(dev.STAMP.read_text())["members"] == ["one"]


def test_members_with_an_environment_are_installed_without_their_libraries(
    dev: ModuleType,
) -> None:
    (dev.ROOT / "requirements.txt").write_text("-e ./one\n")
    (dev.ROOT / "requirements-envs.txt").write_text("-e ./two\n")
    dev.install()
    (alone,) = [command for command in dev.steps if "--no-deps" in command]
    (libraries,) = [command for command in dev.steps if "-r" in command]
    assert alone[-2:] == ["one", "two"]
    assert "one" in libraries
    assert "two" not in libraries


def test_env_tests_the_members_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    dev, called = script("dev"), []
    monkeypatch.setattr(dev, "run", lambda *command: called.append(command) or 0)
    monkeypatch.setenv("TUNEWRIGHT_ENVS", "elsewhere")
    assert dev.env(["trackers", "-k", "wandb"]) == 0
    created, tested = called
    assert created == ("tunewright", "env", "create", "trackers")
    assert tested[:5] == ("tunewright", "env", "run", "trackers", "--")
    assert {"tests/envs/trackers", "--plugin=logger:wandb", "--plugin=logger:aim"} <= set(tested)
    assert tested[-2:] == ("-k", "wandb")


def test_a_failing_step_shows_its_output_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        script("dev").step(
            "trying", [sys.executable, "-c", "print('no room'); raise SystemExit(3)"]
        )
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert shown.out == "trying ... failed\n"
    assert shown.err.startswith("no room\nerror: trying: exit code 3")


def test_an_unknown_verb_shows_the_verbs() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/dev.py", "qickstart"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "quickstart" in done.stdout


def test_built_members_are_editable_wheels_with_their_entry_points(tmp_path: Path) -> None:
    member = tmp_path / "member"
    source = member / "src" / "one"
    source.mkdir(parents=True)
    source.joinpath("__init__.py").write_text('"""One."""\n')
    point = '[project.entry-points."tunewright.adapter"]\none = "one:One"\n'
    member.joinpath("pyproject.toml").write_text(MEMBER.format(name="one") + point + BACKEND)
    script("build_members").build(tmp_path / "wheels", [member])
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("one.pth").decode().strip() == str(member / "src")
        assert "one=one:One" in archive.read(
            "one-0.1.0.dist-info/entry_points.txt"
        ).decode().replace(" ", "")


@pytest.mark.skipif(
    sys.platform == "win32", reason="pictures.py needs a pseudo-terminal, which Windows has not"
)
def test_screen_keeps_what_a_terminal_would_show() -> None:
    sent = "one\r\ntwo\r\r\x1b[2Kthree\r\n\x1b[1A\x1b[2K\x1b[32mfour\x1b[0m\r\n\x1b[?25h"
    assert script("pictures").screen(sent) == ["one", "\x1b[32mfour\x1b[0m"]
