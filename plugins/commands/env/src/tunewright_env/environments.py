"""The environments of envs.toml, and where they lie."""

import hashlib
import json
import os
import site
import sys
import tomllib
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path

from tunewright import RecipeError
from tunewright.errors import did_you_mean
from tunewright.index import environment_folder

STAMP = "tunewright-env.json"  # written last: what has none is half made


@dataclass(frozen=True)
class Environment:
    """One table of envs.toml."""

    name: str
    summary: str
    packages: list[str]  # what is asked of pip, with versions
    overlay: bool = True  # whether it sees the packages of the environment it is created from
    constraints: list[str] = field(default_factory=list)  # versions of what packages bring along
    pip_options: list[str] = field(default_factory=list)  # such as --no-build-isolation

    @property
    def folder(self) -> Path:
        return environment_folder(self.name)

    @property
    def bin(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        return self.bin / ("python.exe" if os.name == "nt" else "python")

    def digest(self) -> str:
        """Changes with everything that the created environment depends on."""
        seen = [asdict(self), sys.version, base_folders() if self.overlay else []]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    def is_ready(self) -> bool:
        """Whether it was created from this version set, and over this environment."""
        try:
            found = json.loads((self.folder / STAMP).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return bool(found == {"digest": self.digest()})


def base_folders() -> list[str]:
    """The folders with packages of the present environment."""
    return [folder for folder in site.getsitepackages() if Path(folder).is_dir()]


def environments() -> dict[str, Environment]:
    """All environments, by name."""
    text = resources.files("tunewright_env").joinpath("envs.toml").read_text("utf-8")
    return {name: Environment(name, **table) for name, table in tomllib.loads(text).items()}


def find(name: str) -> Environment:
    """The environment of this name. Raises RecipeError where there is none."""
    found = environments()
    if name not in found:
        problem = f"there is no environment {name!r:.80}"
        raise RecipeError(problem, place="command line", hint=did_you_mean(name, found))
    return found[name]
