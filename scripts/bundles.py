"""The bundles of bundles.toml, as members: a folder plugins/bundles/NAME for each."""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "plugins/bundles"
PYPROJECT = """[project]
name = "{name}"
version = "{version}"
description = "{description}"
requires-python = ">=3.11,<3.14"
license = "Apache-2.0"
dependencies = [
{needs}]

[build-system]
requires = ["flit_core>=3.12"]
build-backend = "flit_core.buildapi"
"""


def bundles() -> dict[str, dict[str, Any]]:
    """Name → its table."""
    return tomllib.loads((ROOT / "scripts/bundles.toml").read_text("utf-8"))


def distribution(name: str) -> str:
    return "tunewright-defaults" if name == "defaults" else f"tunewright-bundle-{name}"


def chosen(table: dict[str, Any]) -> list[str]:
    """Distributions of the members that a bundle's patterns match."""
    found: set[str] = set()
    left_out = {ROOT / "plugins" / name for name in table.get("without", ())}
    for pattern in table.get("members", ()):
        for file in (ROOT / "plugins").glob(f"{pattern}/pyproject.toml"):
            data = tomllib.loads(file.read_text("utf-8"))
            alone = data.get("tool", {}).get("tunewright", {}).get("env")
            if not alone and file.parent not in left_out and file.parents[1] != FOLDER:
                found.add(data["project"]["name"])
    return sorted(found)


def write() -> None:
    """Write the members. Raises ValueError for a bundle that requires nothing."""
    kernel = tomllib.loads((ROOT / "kernel/pyproject.toml").read_text("utf-8"))["project"]
    version = kernel["version"]
    major, minor = version.split(".")[:2]
    bounds = f">={major}.{minor},<{major}.{int(minor) + 1}"
    for name, table in bundles().items():
        ours = [*map(distribution, table.get("bundles", ())), *chosen(table)]
        needs = ["tunewright", *ours, *table.get("more", ())]
        if len(needs) == 1:
            raise ValueError(f"bundles.toml: {name}: nothing matches its patterns")
        member = FOLDER / name
        package = member / "src" / distribution(name).replace("-", "_")
        package.mkdir(parents=True, exist_ok=True)
        filled = PYPROJECT.format(
            name=distribution(name),
            version=version,
            description=table["description"],
            needs="".join(f'    "{need}{bounds}",\n' for need in needs),
        )
        note = "# Written by scripts/bundles.py from scripts/bundles.toml: `make fix`.\n"
        (member / "pyproject.toml").write_text(note + filled, "utf-8")
        (package / "__init__.py").write_text(f'"""{table["description"]}"""\n', "utf-8")
