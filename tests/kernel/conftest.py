"""Distributions made on the spot: a module and a dist-info folder on sys.path."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunewright import index, kinds, registry

PLUGIN = """
from tunewright import Plugin, PluginOptions, Stage, hookimpl
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """install(name, {"kind": {"plugin": "module:Class"}}, source, requires=...): a distribution and
    its module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def _install(
        name: str,
        groups: dict[str, dict[str, str]],
        source: str = "",
        requires: tuple[str, ...] = ("tunewright>=0.1",),
        files: dict[str, str] | None = None,
    ) -> None:
        module = name.replace("-", "_")
        made.append(module)
        (tmp_path / f"{module}.py").write_text(PLUGIN + source)
        for path, text in (files or {}).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: {name}\n{needs}"
        )
        lines = []
        for group, points in groups.items():
            lines += [
                f"[tunewright.{group}]",
                *(f"{key} = {value}" for key, value in points.items()),
            ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        forget()

    yield _install
    for module in made:
        sys.modules.pop(module, None)
    forget()


def forget() -> None:
    """Let the kernel look at the installed distributions again."""
    index.points.cache_clear()
    index.key.cache_clear()
    kinds.kinds.cache_clear()
    registry._specs.cache_clear()
