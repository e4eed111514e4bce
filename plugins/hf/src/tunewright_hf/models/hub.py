"""Checkpoints: a folder on this machine, or a snapshot of a repository of the Hugging Face hub.

This module imports neither torch nor transformers: the kernel asks it for a checkpoint's family.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from tunewright import RunError
from tunewright_hf.models.errors import first_line

__all__ = ["disable_telemetry", "locate", "read_config", "read_json"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TEXTS = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
# Pickles, other frameworks' files and code are never fetched; a repository's folders hold copies in
# other formats.
_NEVER = ["*/*", "consolidated*.safetensors"]


def disable_telemetry() -> None:
    """Switch off telemetry of the Hugging Face libraries, in this process and its children.

    Whatever asks the hub, or calls a library that tells it what is trained (TRL's trainers do),
    calls this first. Importing tunewright_hf changes nothing.
    """
    from huggingface_hub import constants

    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    constants.HF_HUB_DISABLE_TELEMETRY = True  # it has read the environment when it was imported


def locate(
    model: str,
    revision: str | None = None,
    *,
    weights: bool = True,
    trust_remote_code: bool = False,
) -> Path:
    """The folder of a checkpoint: `model` itself where it is one, else the hub's snapshot in the
    local cache.

    weights: fetch the weights too, and not the tokenizer and config alone. Honours HF_HUB_OFFLINE,
    HF_ENDPOINT and HF_TOKEN. Raises RunError in one line: no such folder, no such repository,
    gated, no connection.
    """
    if (folder := _folder(model)) is not None:
        return folder
    patterns = [
        *_TEXTS,
        *(["*.safetensors"] if weights else []),
        *(["*.py"] if trust_remote_code else []),
    ]
    return _snapshot(model, revision, patterns)


def read_config(model: str, revision: str | None) -> dict[str, Any] | None:
    """The config.json of a hub id or a folder; None where it has none. Raises RunError as `locate`
    does."""
    folder = _folder(model) or _snapshot(model, revision, ["config.json"])
    path = folder / "config.json"
    return read_json(path) if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises RunError."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        if "\\ud" in text or "\\uD" in text:  # half a character cannot be written any more
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise RunError("cannot be read: it is nested too deep", place=str(path)) from error
    except (OSError, ValueError) as error:
        hint = "" if isinstance(error, OSError) else "download or copy it again"
        said = f"cannot be read: {first_line(error)}"
        raise RunError(said, place=str(path), hint=hint) from error
    if not isinstance(found, dict):
        raise RunError(f"holds a {type(found).__name__}, not an object", place=str(path))
    return found


def _folder(model: str) -> Path | None:
    """The folder that `model` names; None for a hub id. Raises RunError for a path that leads
    nowhere: the hub is asked for nothing that was meant as a folder, such as RUN/model."""
    folder = Path(model)
    try:
        folder = folder.expanduser()
        if folder.is_dir():
            return folder
        # a/b is a hub id where there is no folder a; links that lead nowhere are paths too
        local = folder.exists() or folder.is_symlink()
        local = local or ("/" in model and folder.parent.exists())
    except (OSError, RuntimeError, ValueError):  # ~nobody; too long; a NUL
        local = True
    if not local and _HUB_ID.fullmatch(model):
        return None
    found = "is not a folder" if _exists(folder) else "there is no such folder"
    hint = "`model` is a folder, a hub id such as owner/name, or tiny"
    if _HUB_ID.fullmatch(model) and "/" in model:
        hint = f"a folder {model.partition('/')[0]} is here, so this is no id of the hub; {hint}"
    raise RunError(found, place=model, hint=hint)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _snapshot(model: str, revision: str | None, patterns: list[str]) -> Path:
    # hf_hub_download would retry for 23 seconds where there is no network; this one falls back to
    # the cache at once.
    from huggingface_hub import errors, snapshot_download

    disable_telemetry()
    try:
        return Path(
            snapshot_download(
                model, revision=revision, allow_patterns=patterns, ignore_patterns=_NEVER
            )
        )
    except (OSError, ValueError, errors.HTTPError) as error:
        raise _explained(model, revision, error) from error


def _explained(model: str, revision: str | None, error: Exception) -> RunError:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{model}"
    if isinstance(error, errors.GatedRepoError):
        return RunError(
            "is gated",
            place=model,
            hint=f"ask for access at {page}, then set HF_TOKEN or run `hf auth login`",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "if it is private, set HF_TOKEN or run `hf auth login`"
        return RunError("is neither a folder here nor a model on the hub", place=model, hint=hint)
    if isinstance(error, errors.RevisionNotFoundError):
        return RunError(
            f"the hub has no revision {revision!r} of it", place=model, hint=f"see {page}/commits"
        )
    if isinstance(error, errors.LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return RunError(
            "is not in the local cache", place=model, hint="unset HF_HUB_OFFLINE to download it"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = first_line(error).removeprefix("Got: ")
        problem = (
            f"is neither a folder here nor in the local cache, and {constants.ENDPOINT} "
            f"cannot be asked: {cause}"
        )
        return RunError(
            problem, place=model, hint="HF_ENDPOINT names another hub; a folder needs no network"
        )
    return RunError(f"cannot be downloaded: {first_line(error)}", place=model)
