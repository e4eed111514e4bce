"""Models to choose from: listed checkpoints, folders of the workspace, and a model's family."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.detection import detect_family
from tunewright.errors import RecipeError
from tunewright_web.errors import WebError
from tunewright_web.workspace import Workspace

_SECONDS = 60
_DEEP = 4  # levels of folders below the workspace that are looked at
_MOST = 200  # folders


@dataclass(frozen=True, slots=True)
class Found:
    """What is known about a model without loading it. known: where it is from."""

    family: str = ""
    template: str = ""
    known: str = ""  # listed, folder, tiny; "" if nothing is known
    size: str = ""
    license: str = ""
    kind: str = ""
    remote_code: bool = False
    problem: str = ""


@functools.cache
def listed() -> tuple[dict[str, Any], ...]:
    """Checkpoints of the installed families, as `tunewright models list --json` gives them; none
    where that command is not installed."""
    command = [sys.executable, "-m", "tunewright", "models", "list", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        return tuple(json.loads(done.stdout)) if not done.returncode else ()
    except (subprocess.TimeoutExpired, ValueError):
        return ()


def search(words: str, family: str = "") -> list[dict[str, Any]]:
    """Listed checkpoints that have all words."""
    wanted = words.lower().split()
    return [
        each
        for each in listed()
        if family in ("", each["family"])
        and all(word in f"{each['family']} {each['line']} {each['id']}".lower() for word in wanted)
    ]


def folders(workspace: Workspace) -> list[str]:
    """Folders of the workspace that hold a model, as a recipe names them."""
    found = []
    for folder in _walk(workspace.root, workspace, _DEEP):
        if (folder / "config.json").is_file():
            found.append(workspace.shown(folder))
        if len(found) == _MOST:
            break
    return found


def _walk(folder: Path, workspace: Workspace, depth: int) -> Iterator[Path]:
    try:
        inner = sorted(each for each in folder.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError:
        return
    for each in inner:
        if each.name.startswith((".", "checkpoint-")) or not workspace.holds(each):
            continue
        yield each
        if depth > 1:
            yield from _walk(each, workspace, depth - 1)


def find(model: str, workspace: Workspace, family: str = "") -> Found:
    """Family and template of a model, from the lists and its config.json."""
    if not model:
        return Found()
    if model == "tiny":
        return Found(family, known="tiny")
    for each in listed():
        if model in (each["id"], each["modelscope"]):
            return Found(
                each["family"],
                each["template"],
                "listed",
                each["size"],
                each["license"],
                each["kind"],
                each["remote_code"],
            )
    try:
        folder = workspace.readable(model)
    except WebError as error:
        return Found(problem=error.error if error.status == 403 and model[:1] in "/.~" else "")
    if not (folder / "config.json").is_file():
        return Found(problem=f"{model} holds no config.json")
    try:
        return Found(detect_family(str(folder)), known="folder")
    except RecipeError as error:
        return Found(known="folder", problem=str(error).replace(str(folder), model))
