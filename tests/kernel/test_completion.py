"""Completion by the shell, `--version`, and the end of the help."""

import os
import subprocess
import sys

import pytest

from tunewright import __version__

PROGRAM = [sys.executable, "-m", "tunewright"]


def completions(*words: str) -> list[str]:
    """What bash would be told for the last of the words."""
    env = {
        **os.environ,
        "_TUNEWRIGHT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["tunewright", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(PROGRAM, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["pl"], {"plan", "plugins"}),
        (["plugins", "in"], {"info", "install"}),
        (["train", "--sm"], {"--smoke"}),
        (["serve", "--po"], {"--port"}),  # of a plugin: it is imported for this
        (["env", "doc"], {"doctor"}),
        (["plugins", "info", "warmup_st"], {"warmup_stable_decay"}),
        (["plugins", "install", "bundle:v"], {"bundle:vision"}),
    ],
)
def test_words_are_completed(words: list[str], wanted: set[str]) -> None:
    assert set(completions(*words)) == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell: str) -> None:
    """As --show-completion does for the shell that it is called from."""
    env = {**os.environ, "_TUNEWRIGHT_COMPLETE": f"source_{shell}"}
    done = subprocess.run(PROGRAM, env=env, capture_output=True, text=True, check=True)
    assert f"complete_{shell}" in done.stdout


def test_version_and_help() -> None:
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"
    done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True)
    for said in ("--debug", "Exit codes:", "130 stopped", "TUNEWRIGHT_CACHE", "env doctor"):
        assert said in done.stdout
