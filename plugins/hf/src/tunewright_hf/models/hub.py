"""Checkpoints: a local folder, or a snapshot of a repository on the Hugging Face hub.

This module imports neither torch nor transformers: the kernel uses it to find a checkpoint's
family.
"""

import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

from tunewright import RunError
from tunewright_hf.models.errors import first_line

__all__ = ["disable_telemetry", "locate", "read_config", "read_json"]

_aborted = threading.Event()  # set: downloads in progress end

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TEXTS = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.ttf"]
# Other frameworks' files are never downloaded, pickles and code only on request; subfolders of a
# repository hold copies in other formats.
_NEVER = ["*/*", "consolidated*.safetensors"]
_DAMAGED = "download or copy it again"


def disable_telemetry() -> None:
    """Disable telemetry of the Hugging Face libraries, in this process and its children.

    Call it before using the hub, or a library that reports to it (TRL's trainers do). Importing
    tunewright_hf changes nothing.
    """
    from huggingface_hub import constants

    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # the library read the environment when it was imported
    constants.HF_HUB_DISABLE_TELEMETRY = True


def abort_downloads() -> None:
    """End the downloads of this process, in whatever threads. What has come stays in the cache: the
    next download goes on there."""
    if "hf_xet" in sys.modules:
        from huggingface_hub.utils._xet import abort_xet_session  # tested with huggingface_hub 2.4

        abort_xet_session()
    _aborted.set()


def locate(
    model: str,
    revision: str | None = None,
    *,
    weights: bool = True,
    trust_remote_code: bool = False,
    pickles: bool = False,
) -> Path:
    """Folder of a checkpoint: `model` itself if it is a folder, else the hub's snapshot in the
    local cache.

    weights: also download the weights, not only tokenizer and config. pickles: download weights
    that are pickles, and code, for `tunewright models convert`, which copies it. Honours
    HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN. Raises a one-line RunError: no such folder or
    repository, gated, no connection.
    """
    if (folder := _folder(model)) is not None:
        return folder
    patterns = [
        *_TEXTS,
        *(["*.safetensors"] if weights else []),
        *(["*.py"] if trust_remote_code or pickles else []),
        *(["pytorch_model*.bin", "adapter_model.bin"] if pickles else []),
    ]
    return _snapshot(model, revision, patterns)


def read_config(model: str, revision: str | None) -> dict[str, Any] | None:
    """Content of config.json for a hub id or a folder; None if there is none. Raises RunError as
    `locate` does."""
    folder = _folder(model) or _snapshot(model, revision, ["config.json"])
    path = folder / "config.json"
    return read_json(path) if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises RunError."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        if "\\ud" in text or "\\uD" in text:  # a lone surrogate could not be written again
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        said = "cannot be read: it is nested too deep"
        raise RunError(said, place=str(path), hint=_DAMAGED) from error
    except (OSError, ValueError) as error:
        hint = "" if isinstance(error, OSError) else _DAMAGED
        said = f"cannot be read: {first_line(error)}"
        raise RunError(said, place=str(path), hint=hint) from error
    if not isinstance(found, dict):
        said = f"holds a {type(found).__name__}, not an object"
        raise RunError(said, place=str(path), hint=_DAMAGED)
    return found


def _folder(model: str) -> Path | None:
    """The folder that `model` names; None for a hub id. Raises RunError for a path that does not
    exist: the hub is not asked for names meant as a folder, such as RUN/model."""
    folder = Path(model)
    try:
        folder = folder.expanduser()
        if folder.is_dir():
            return folder
        # a/b is a hub id if there is no folder a; broken links are paths too
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
    # hf_hub_download would retry for 23 seconds without a network; this function falls back to the
    # cache at once.
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import tqdm

    class Progress(tqdm):  # type: ignore[misc]
        """Progress bar, which each thread updates between two chunks of a file."""

        def update(self, n: float | None = 1) -> Any:
            if _aborted.is_set():
                raise KeyboardInterrupt  # the library waits for its threads
            return super().update(n)

    disable_telemetry()
    _aborted.clear()
    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=_NEVER,
                tqdm_class=Progress,
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
