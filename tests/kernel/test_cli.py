"""The command line: one line for every mistake, and no plugin that can take it over."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kernel_fakes as fakes
from tunewright import cli, index, registry
from tunewright.errors import RecipeError

LIKE_A_USER = [sys.executable, "-m", "tunewright"]


@pytest.fixture
def called(monkeypatch, capsys):
    """called(arguments): exit code, standard output and error of a command."""

    def _called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunewright", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return _called


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("trian r.yaml", "no such command 'trian' (did you mean 'train'?; see tunewright --help)"),
        ("recipe chek", "no such command 'chek' (did you mean 'check'?; see tunewright recipe"),
        ("plugins lst", "no such command 'lst' (did you mean 'list'?; see tunewright plugins"),
        (
            "xyzzy",
            "no such command 'xyzzy' (there is: chat, compare, data, env, evaluate, export, import",
        ),
        ("eval r.yaml", "no such command 'eval' (tunewright evaluate measures a trained model"),
        ("webui", "no such command 'webui' (tunewright web is the web workbench"),
        ("train", "missing argument 'RECIPE' (see tunewright train --help)"),
        ("train --nope r.yaml", "no such option: --nope (did you mean --smoke?; see tunewright"),
        ("train --smoke=3 r.yaml", "option '--smoke' does not take a value (see tunewright"),
        ("plugins info", "missing argument 'NAME' (see tunewright plugins info --help)"),
        ("plugins info nothing", "no installed plugin is called 'nothing' (tunewright plugins"),
        ("plugins list --kind lora", "there is no kind of plugin 'lora' ("),
        ("plugins check --timeout soon", "invalid value for '--timeout': "),
        ("recipe check nothing.yaml", "nothing.yaml: cannot be read: No such file or directory"),
        ("recipe check .", ".: is not a file"),
        ("recipe check", "missing argument 'RECIPE' (see tunewright recipe check --help)"),
        ("version extra", "got unexpected extra argument"),
        ("", None),
        ("recipe", None),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(called, arguments, line):
    code, out, error = called(*arguments.split())
    assert code == 2
    if line is None:  # a group without a verb shows its help
        assert out.startswith("Usage: ") and not error
        return
    assert error.startswith(f"error: {line}")
    assert len(error.splitlines()) == 1 and not out


@pytest.mark.parametrize("verb", ["--help", "train --help", "recipe --help", "recipe new --help"])
def test_help_is_no_mistake(called, verb):
    code, out, _ = called(*verb.split())
    assert (code, out.startswith("Usage: tunewright")) == (0, True)


# ---- listings as JSON ----------------------------------------------------------------------------


def test_listing_and_describing_as_json(called, install):
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    code, out, _ = called("plugins", "list", "--json")
    entries = json.loads(out)
    assert code == 0
    assert {
        "kind": "stage",
        "name": "mine",
        "distribution": "tw-mine",
        "version": "1.0",
        "summary": "tw-mine",
    } in entries
    assert "tw_mine" not in sys.modules
    code, out, _ = called("plugins", "info", "stage:mine", "--json")
    (about,) = json.loads(out)
    assert about["options"] == {"fail": {"required": False, "default": "", "description": ""}}
    assert about["deviations"] == {}
    assert called("plugins", "info", "tw-mine:score", "--json")[0] == 0


def test_defaults_that_are_models_sets_or_paths_are_json_too(called, install):
    source = """
from pathlib import Path
from pydantic import Field
class Inner(PluginOptions):
    depth: int = 3
class A(Plugin):
    class Options(PluginOptions):
        inner: Inner = Inner()
        names: frozenset[str] = frozenset(["a"])
        where: Path = Path("x")
        made: list[int] = Field(default_factory=lambda: [1])
        needed: int
"""
    install("tw-one", {"adapter": {"one": "tw_one:A"}}, source)
    code, out, _ = called("plugins", "info", "one", "--json")
    options = json.loads(out)[0]["options"]
    assert code == 0
    assert {name: option["default"] for name, option in options.items()} == {
        "inner": {"depth": 3},
        "names": ["a"],
        "where": "x",
        "made": [1],
        "needed": None,
    }


# ---- plugins that would take over ----------------------------------------------------------------

COMMAND = """
def mine() -> None:
    print("HIJACKED")
"""


@pytest.mark.parametrize("verb", ["version", "train", "recipe", "recipe.check", "plugins.list"])
def test_a_verb_of_the_kernel_cannot_be_taken(called, install, verb):
    install("tw-greedy", {"command": {verb: "tw_greedy:mine", "greedy": "tw_greedy:mine"}}, COMMAND)
    _, out, error = called(*verb.split("."), *(["--help"] if verb != "version" else []))
    assert "HIJACKED" not in out
    assert f"warning: tw-greedy claims the verb {verb!r}, which is the kernel's" in error
    assert called("greedy")[1] == "HIJACKED\n"
    assert "tw-greedy" not in called("version")[2] or verb == "version"


def test_a_verb_of_a_group_that_there_is_not_is_left_out(called, install):
    install("tw-greedy", {"command": {"nothing.mine": "tw_greedy:mine"}}, COMMAND)
    assert called("--help")[0] == 0
    assert called("nothing", "mine")[0] == 2


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "1 / 0", "mine = 5", "import nothing"])
def test_a_broken_verb_is_reported_when_it_is_called_and_only_then(called, install, source):
    install("tw-broken", {"command": {"broken": "tw_broken:mine"}}, source)
    assert called("--help")[0] == called("version")[0] == 0
    code, _, error = called("broken")
    assert code == 2 if source != "mine = 5" else code
    assert error.startswith("error: ") and len(error.splitlines()) == 1


def test_a_summary_cannot_drive_the_terminal(called, install, tmp_path):
    install(
        "tw-ansi",
        {"command": {"ansi": "tw_ansi:mine"}, "adapter": {"ansi": "tw_ansi:A"}},
        COMMAND + "class A(Plugin):\n    '''An \\x1b[31mA'''\n",
    )
    metadata = tmp_path / "tw_ansi-1.0.dist-info/METADATA"
    metadata.write_text(
        metadata.read_text().replace(
            "Summary: tw-ansi", "Summary: \x1b]0;owned\x07red \x1b[31m \u202e back\x9b"
        )
    )
    for point in (index.points, index.key):
        point.cache_clear()
    for arguments in ("--help", "plugins list", "plugins info adapter:ansi"):
        code, out, error = called(*arguments.split())
        assert code == 0 and "ansi" in out
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", out + error)


# ---- plugins check -------------------------------------------------------------------------------

HOSTILE = {
    "exits": ("import os; os._exit(7)", "its import ends the process (code 7)"),
    "sleeps": ("import time; time.sleep(600)", "its import takes longer than 1 seconds"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "leaves": ("raise SystemExit(0)", "SystemExit: 0"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "ends the process (code -9)"),
    "speaks": ("print('x' * 100_000)\nimport nothing_like_it", "No module named"),
    "panics": ("class Panic(BaseException): pass\nraise Panic('rust')", "Panic: rust"),
    "no plugin": ("A = 5", "is not a subclass of tunewright.Plugin"),
}


def test_no_plugin_can_end_or_hold_the_check_of_the_others(called, install, monkeypatch):
    for number, (source, _) in enumerate(HOSTILE.values()):
        install(f"tw-{number}", {"adapter": {f"p{number}": f"tw_{number}:A"}}, source)
    install("tw-good", {"adapter": {"good": "tw_good:A"}}, "class A(Plugin): pass")
    install("tw-kind", {"kind": {"odd": "tw_kind:KINDS"}}, "import nothing_at_all")
    real = registry.entries
    monkeypatch.setattr(
        registry, "entries", lambda kind: [e for e in real(kind) if e.distribution[:3] == "tw-"]
    )
    code, out, error = called("plugins", "check", "--timeout", "1")
    lines = error.splitlines()
    assert code == 1
    for number, (_, said) in enumerate(HOSTILE.values()):
        (line,) = [line for line in lines if f"adapter 'p{number}' of tw-{number}" in line]
        assert line.startswith("broken: ") and said in line
    assert any("tw-kind" in line and "nothing_at_all" in line for line in lines)
    assert not any("good" in line for line in lines)
    assert out == f"1 of {len(HOSTILE) + 1} plugins can be imported\n"


# ---- standard streams ----------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("verb", ["version", "plugins list", "--help", "env", "models"])
def test_a_full_output_is_one_line(verb):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*LIKE_A_USER, *verb.split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert len(lines) == 1 and lines[0].startswith("error: ") and "written" in lines[0]
    assert "defect" not in lines[0]


@pytest.mark.skipif(os.name == "nt", reason="redirections of a POSIX shell")
@pytest.mark.parametrize(
    ("redirection", "code"),
    [(">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&-", 0), ("| head -c 1", 0)],
)
def test_closed_streams_break_nothing(redirection, code):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tunewright plugins list {redirection}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(os.name == "nt", reason="redirections of a POSIX shell")
def test_with_standard_error_closed_an_error_does_not_go_to_the_output():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tunewright recipe check nothing.yaml 2>&-"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("\n\nline one\nline two"), 1, "error: RuntimeError: line one line two (this"),
        (ValueError("x" * 9000), 1, "error: ValueError: xxx"),
        (OSError(28, "No space left on device"), 1, "error: cannot be written: No space left on"),
        (
            type("PanicException", (BaseException,), {})("Onig: retry"),
            1,
            "error: PanicException: O",
        ),
        (KeyboardInterrupt(), 130, "error: stopped"),
        (MemoryError(), 1, "error: MemoryError"),
        (RecipeError("two\nlines", place="a\nb"), 2, "error: a b: two lines"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_raised_is_one_short_line(called, monkeypatch, error, code, said):
    def fails() -> None:
        raise error

    monkeypatch.setitem(cli.VERBS[""][1], "version", fails)
    found, _, text = called("version")
    assert found == code
    assert text.startswith(said)
    assert len(text.splitlines()) == 1 and len(text) < 1200
