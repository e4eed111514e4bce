"""The members of this checkout, as its two lists name them, and its scripts."""

import importlib.util
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Member:
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "pyproject.toml"

    @property
    def project(self) -> dict[str, Any]:
        return tomllib.loads(self.file.read_text("utf-8"))["project"]

    @property
    def env(self) -> str:
        """The environment in which its libraries are, "" for the default install."""
        data = tomllib.loads(self.file.read_text("utf-8"))
        return data.get("tool", {}).get("tunewright", {}).get("env", "")

    @property
    def is_bundle(self) -> bool:
        """Whether it only requires other members, and holds no code."""
        return self.folder.parent.name == "bundles"

    @property
    def needs(self) -> list[str]:
        """Its requirements, those of its extras too."""
        return [*self.project["dependencies"], *self.extras]

    @property
    def extras(self) -> list[str]:
        """The requirements of its extras: they need not be installed."""
        extras = self.project.get("optional-dependencies", {}).values()
        return [need for extra in extras for need in extra]

    @property
    def package(self) -> str:
        """The name of what is imported."""
        return self.project["name"].replace("-", "_")

    @property
    def source(self) -> Path:
        return self.folder / "src" / self.package

    def __str__(self) -> str:
        return self.folder.relative_to(ROOT).as_posix()


@cache
def members() -> tuple[Member, ...]:
    files = (ROOT / "requirements.txt", ROOT / "requirements-envs.txt")
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return tuple(
        Member(ROOT / line.removeprefix("-e ./")) for line in lines if line.startswith("-e ./")
    )


def names(*kinds: str) -> set[str]:
    """Names of the members' entry points of these kinds; of all kinds by default."""
    found = set()
    for member in members():
        for group, points in member.project.get("entry-points", {}).items():
            if group.startswith("tunewright.") and (
                not kinds or group.removeprefix("tunewright.") in kinds
            ):
                found |= set(points)
    return found


def script(name: str) -> ModuleType:
    """A file of scripts/, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
