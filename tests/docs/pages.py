"""The fenced blocks of a page, and what becomes of each.

A block with `title="FILE"` is a file. Others are run by their language: console is commands (behind
`$ `) and lines that their output has, yaml is a recipe or sections of one, python is run. A comment
before a block, `<!-- not run: REASON -->`, says why it is only read; its commands of Tunewright are
still parsed, and so are those that stand in the text.
"""

import ast
import contextlib
import gc
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import typer
import yaml
from typer.exceptions import TyperException

from tunewright import check, cli

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(
    page
    for folder in ("tutorial", "how-to", "explanation")
    for page in (DOCS / folder).glob("*.md")
    if not page.name.endswith(".zh.md")  # blocks are the same: test_translations.py
)
PAGES.append(
    DOCS / "reference/run-folder.md"
)  # the others there are made, and tested in tests/workspace
RUN = {"console", "yaml", "python"}
#: yml, bash: a configuration of another program
FILES = {"bash", "json", "toml", "jinja", "text", "yml", *RUN}
REASONS = {
    "needs a GPU",
    "needs a cluster",
    "needs a terminal",
    "needs the network",
    "needs a library of its own",
    "needs a tracker's library",
    "is another program's",
    "is stopped by hand",
    "takes minutes",
}
BLOCK = re.compile(
    r"(?:^<!-- not run: (.+?) -->\n)?^```(\w*)(?: title=\"(.+?)\")?\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)  # any, also those that BLOCK does not know
INLINE = re.compile(r"`tunewright\s+([^`]+)`")
SCHEMA = (
    "# yaml-language-server: $schema=recipe.schema.json\n"  # the first line of every recipe of ours
)

#: what a recipe on a page leaves out
REST = {
    "model": "tiny",
    "family": "qwen",
    "data": [{"path": "data.jsonl"}],
    "stage": "sft",
    "output": "runs/page",
}


@dataclass
class Block:
    reason: str  # why it is not run; "": it is
    language: str
    title: str  # the file that it is; "": none
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(
            found[1] or "",
            found[2],
            found[3] or "",
            found[4],
            text.count("\n", 0, found.start()) + 1,
        )
        for found in BLOCK.finditer(text)
    ]


def run(block: Block) -> None:
    """In the current folder. Raises where the block does not do what the page says."""
    if block.title:
        file = Path(block.title)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, "utf-8")
    match block.language:
        case "console":
            _console(block.text)
        case "yaml":
            _recipe(block.text, whole=bool(block.title))
        case "python" if not block.title:
            exec(compile(block.text, f"line {block.line}", "exec"), {})  # noqa: S102 - our own page
        case "python":
            ast.parse(block.text)
        case "json":
            for line in block.text.splitlines():
                json.loads(line)
        case "toml":
            tomllib.loads(block.text)


def parse(command: str, *, in_text: bool = False) -> None:
    """Fail where a command of Tunewright has no such verb, option or number of arguments. Nothing
    is run.

    in_text: a verb alone is its name, and none that lacks its arguments.
    """
    words = shlex.split(command, comments=True)
    root = typer.main.get_command(cli.build())
    if words and words[0] in {option for each in root.params for option in each.opts}:
        return
    arguments = [
        word for word in words if word not in ("--debug", "--help")
    ]  # all commands have these
    found, named = root, in_text or "--help" in words
    while inner := getattr(found, "commands", None):  # only groups of commands have some
        if not arguments and named:
            return
        name = arguments.pop(0) if arguments else ""
        assert name in inner, f"{command}: there is no verb {name!r}"
        found = inner[name]
    if arguments or not named:
        try:
            found.make_context("tunewright", arguments)
        except TyperException as error:
            raise AssertionError(f"{command}: {error}") from error


def _recipe(text: str, *, whole: bool) -> None:
    """Check a recipe, or the sections of one."""
    written = yaml.safe_load(text)
    assert text.startswith(SCHEMA) == whole, (
        "a recipe that is a file, and no other, begins with the line for editors"
    )
    rest = {
        key: value
        for key, value in REST.items()
        if key not in written and not (key == "stage" and "stages" in written)
    }
    file = Path("of-the-page.yaml")
    file.write_text(text + "\n" + yaml.safe_dump(rest) if rest else text, "utf-8")
    check.resolve(file)


def _console(text: str) -> None:
    """Run the commands; the lines below each have to stand in its output."""
    before, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not before and parts, "a console's first line is a command, behind a dollar sign"
    for part in parts:
        command, *expected = part.splitlines()
        output = _command(command)
        for line in expected:
            assert line.strip() in ("", "...") or line.strip() in output, (
                f"{command}: no {line!r} in\n{output}"
            )


def _command(command: str) -> str:
    """The output of a command: of Tunewright in this process, of others in one of their own. Fails
    where it fails."""
    program, *arguments = shlex.split(command, comments=True)
    if program == "tunewright":
        return _tunewright(arguments)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-ec", command]
    done = subprocess.run(
        shell, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def _tunewright(arguments: list[str]) -> str:
    output, thresholds = io.StringIO(), gc.get_threshold()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        mock.patch.object(sys, "argv", ["tunewright", *arguments]),
        mock.patch.object(
            sys, "stdin", io.StringIO()
        ),  # nobody answers: a conversation ends at once
    ):
        try:
            cli.main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(
                    f"tunewright {shlex.join(arguments)}: {output.getvalue()[-2000:]}"
                ) from end
        finally:
            gc.set_threshold(*thresholds)
    return output.getvalue()
