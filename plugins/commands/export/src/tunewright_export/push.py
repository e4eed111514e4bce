"""Upload an export to a hub. Imports no torch."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunewright import RecipeError, RunError
from tunewright.errors import did_you_mean

Upload = Callable[[Path, str, str, bool], None]  # folder, repository, token, private


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub with its library."""

    name: str
    module: str
    install: str  # for pip
    variable: str  # of the environment, with the token
    upload: Upload


@dataclass(frozen=True, slots=True)
class Target:
    hub: Hub
    repository: str  # ORG/NAME


def parse_target(written: str) -> Target:
    """The target of `--push HUB:ORG/NAME`; without HUB, Hugging Face. Raises RecipeError where it
    cannot be used: for its form, and without library or token."""
    place = "command line: --push"
    name, colon, repository = written.rpartition(":")
    name = name if colon else "hf"
    if name not in HUBS:
        hint = did_you_mean(name, set(HUBS)) or f"there is: {', '.join(HUBS)}"
        raise RecipeError(f"no hub is called {name!r:.60}", place=place, hint=hint)
    parts = repository.split("/")
    if len(parts) != 2 or not all(parts) or repository != repository.strip():
        raise RecipeError(f"found {written!r:.80}, expected {name}:ORG/NAME", place=place)
    hub = HUBS[name]
    if importlib.util.find_spec(hub.module) is None:
        hint = f'pip install "{hub.install}"'
        raise RecipeError(f"{hub.module} is not installed", place=place, hint=hint)
    if not os.environ.get(hub.variable):
        problem = f"{hub.name} asks for a token, and {hub.variable} is not set"
        raise RecipeError(problem, place=place, hint=f"export {hub.variable}=… in the shell")
    return Target(hub, repository)


def push(folder: Path, target: Target, *, private: bool) -> None:
    """Upload a folder to a repository, which is made if there is none. Raises RunError."""
    token = os.environ[target.hub.variable]
    try:
        target.hub.upload(folder, target.repository, token, private)
    except Exception as error:  # of a library, a network, a server
        said = " ".join(str(error).replace(token, "…").split())[:300]
        problem = f"cannot be uploaded to {target.hub.name}: {type(error).__name__}: {said}"
        hint = f"the export is complete in {folder}; --push takes one that exists, too"
        raise RunError(problem, place=target.repository, hint=hint) from None


def _huggingface(folder: Path, repository: str, token: str, private: bool) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=folder, commit_message=_MESSAGE)


def _modelscope(folder: Path, repository: str, token: str, private: bool) -> None:
    from modelscope_hub import HubApi

    api = HubApi(token=token, endpoint=os.environ.get("MODELSCOPE_ENDPOINT"))
    if not api.repo_exists(repository, "model"):
        api.create_repo(repository, "model", visibility="private" if private else "public")
    api.upload_folder(
        repository, "model", folder, commit_message=_MESSAGE, use_cache=False, disable_tqdm=True
    )


def _modelers(folder: Path, repository: str, token: str, private: bool) -> None:
    from openmind_hub import create_repo, upload_folder

    create_repo(repository, token=token, private=private, exist_ok=True)
    upload_folder(repo_id=repository, folder_path=folder, token=token, commit_message=_MESSAGE)


_MESSAGE = "Upload by tunewright export"
HUBS = {
    "hf": Hub("Hugging Face", "huggingface_hub", "huggingface-hub", "HF_TOKEN", _huggingface),
    "modelscope": Hub(
        "ModelScope",
        "modelscope_hub",
        "tunewright-export[modelscope]",
        "MODELSCOPE_API_TOKEN",
        _modelscope,
    ),
    "modelers": Hub(
        "Modelers", "openmind_hub", "tunewright-export[modelers]", "MODELERS_TOKEN", _modelers
    ),
}
