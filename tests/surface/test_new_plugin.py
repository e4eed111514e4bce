"""`tunewright plugins new`: what it writes works as it is, in a folder that holds nothing but its
wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flit_core import buildapi
from typer.testing import CliRunner

from tunewright import RecipeError, registry
from tunewright.cli import build
from tunewright.kinds import kinds
from tunewright_new.plugin import write_plugin

CLAIMED = {point.name for point in registry.group("model_type")}
MODEL_TYPE = next(
    name for name in ("helium", "arcee", "apertus", "stablelm") if name not in CLAIMED
)


def write(kind: str, folder: Path) -> list[Path]:
    return write_plugin(f"my_{kind}", kind, folder, MODEL_TYPE if kind == "family" else "")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind → the folder of its new distribution."""
    parent = tmp_path_factory.mktemp("new")
    for kind in kinds():
        write(kind, parent / kind)
    return {kind: parent / kind for kind in kinds()}


@pytest.fixture(scope="module")
def site(written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of all of them, unpacked: what pip would make of them, without its
    seconds."""
    folder, start = tmp_path_factory.mktemp("site"), Path.cwd()
    for source in written.values():
        os.chdir(source)  # a build backend builds what stands in the working directory
        try:
            wheel = buildapi.build_wheel(str(source))
        finally:
            os.chdir(start)
        with zipfile.ZipFile(source / wheel) as archive:
            archive.extractall(folder)
    return folder


def run(site: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=site,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_all_kinds_pass_the_conformance_suite_as_they_are(site: Path) -> None:
    said = run(
        site,
        "tunewright",
        "plugins",
        "check",
        *(f"{kind}:my_{kind}" for kind in kinds()),
        "template:my_family",
    )
    assert " passed" in said
    assert " 2 xfailed" in said, "new templates declare that nobody has reviewed their texts"


@pytest.mark.slow
def test_their_own_tests_pass(site: Path, written: dict[str, Path]) -> None:
    folders = [str(folder / "tests") for kind, folder in written.items() if kind != "template"]
    settings = ["-c", os.devnull, "--import-mode=importlib", "-p", "no:cacheprovider"]
    assert " passed" in run(site, "pytest", "-q", *settings, *folders)


def test_they_are_written_as_ruff_would(written: dict[str, Path]) -> None:
    settings = ["--isolated", "--line-length=120", "--no-cache", "--config=src=['*/src']"]
    for command in (["check", "--select=E,W,F,I,UP,B"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, *settings, "."]
        parent = written["logger"].parent
        done = subprocess.run(ruff, cwd=parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", kinds())
def test_nothing_is_left_to_fill_in(written: dict[str, Path], kind: str) -> None:
    files = [path for path in written[kind].rglob("*") if path.is_file() and path.suffix != ".whl"]
    names = {path.name for path in files}
    assert {"pyproject.toml", "README.md"} <= names
    for path in files:
        assert "$" not in str(path.relative_to(written[kind]))
        text = path.read_text("utf-8").replace("$ ", "")  # a prompt in a README
        assert "$" not in text
        assert "tunewright>=0.1,<0.2" in text or path.name != "pyproject.toml"


def test_a_template_is_one_jinja_file_and_a_pyproject(written: dict[str, Path]) -> None:
    files = [
        p.relative_to(written["template"]).as_posix()
        for p in written["template"].rglob("*")
        if p.is_file()
    ]
    assert {file for file in files if not file.endswith((".whl", ".md"))} == {
        "pyproject.toml",
        "src/tunewright_my_template/my_template.jinja",
    }


def test_the_verb_stands_among_the_kernels_own(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    runner = CliRunner()
    done = runner.invoke(
        build(), ["plugins", "new", "wren", "--kind", "logger", "--folder", str(folder)]
    )
    assert done.exit_code == 0, done.output
    assert str(folder / "src/tunewright_wren/__init__.py") in done.stdout.splitlines()
    shown = runner.invoke(build(), ["plugins", "--help"]).stdout
    assert all(f"\n  {verb} " in shown for verb in ("list", "info", "check", "new"))


def test_a_name_that_the_scaffold_imports_is_no_obstacle(tmp_path: Path) -> None:
    write_plugin("event", "logger", tmp_path / "new")
    source = (tmp_path / "new/src/tunewright_event/__init__.py").read_text()
    assert "class EventPlugin(Logger)" in source
    assert 'event = "tunewright_event:EventPlugin"' in (tmp_path / "new/pyproject.toml").read_text()


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(RecipeError, match="is there already"):
        write("logger", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "kind", "model_type", "said"),
    [
        ("My-Logger", "logger", "", "expected small letters"),
        ("class", "logger", "", "expected small letters"),
        ("jsonl", "logger", "", "tunewright-jsonl has a logger of this name"),
        ("train", "command", "", "tunewright has a command of this name"),
        ("jsonl", "optimizer", "", "tunewright-jsonl is installed"),
        ("wren", "loger", "", "did you mean 'logger'"),
        ("wren", "family", "", "expected the family's model_type"),
        ("wren", "family", "llama", "tunewright-llama has it"),
        ("wren", "logger", "llama", "is for families only"),
    ],
)
def test_a_name_that_cannot_be_used_is_reported(
    tmp_path: Path, name: str, kind: str, model_type: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        write_plugin(name, kind, tmp_path / "new", model_type)
    assert not (tmp_path / "new").exists()
