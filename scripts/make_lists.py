"""Write the lists of members anew, from their pyproject.toml files: requirements.txt, and the
tables [known.…] of the kernel's plugins.toml, which tell what to install for a name that is
missing.

    python scripts/make_lists.py
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "kernel/src/tunewright/plugins.toml"
#: folder below plugins/ → the entry-point groups of its members; the order is that of the lists
FOLDERS = {
    "families": ("family", "model_type", "template"),
    "templates": ("template",),
    "quantizers": ("quantizer",),
    "adapters": ("adapter",),
    "datasets": ("dataset", "format"),
    "optimizers": ("optimizer",),
    "schedulers": ("scheduler",),
    "accelerators": ("accelerator",),
    "rewards": ("reward",),
    "stages": ("stage",),
    "loggers": ("logger",),
    "engines": ("engine",),
    "commands": ("command",),
}


def members() -> list[Path]:
    """The folders of all members: the kernel and what plugins share first, conformance last."""
    found = [
        path.parent
        for folder in FOLDERS
        for path in sorted((ROOT / "plugins" / folder).glob("*/pyproject.toml"))
    ]
    return [ROOT / "kernel", ROOT / "plugins/hf", *found, ROOT / "tests/conformance"]


def known() -> dict[str, dict[str, str]]:
    """Group → name → the distribution that brings it."""
    groups: dict[str, dict[str, str]] = {
        group: {} for groups in FOLDERS.values() for group in groups
    }
    for member in members():
        project = tomllib.loads((member / "pyproject.toml").read_text("utf-8"))["project"]
        for group, names in project.get("entry-points", {}).items():
            table = groups.get(group.removeprefix("tunewright."))
            if table is not None and member.is_relative_to(ROOT / "plugins"):
                table.update(dict.fromkeys(names, project["name"]))
    return {group: table for group, table in groups.items() if table}


def key(name: str) -> str:
    """A name as a key of TOML, in which a dot would divide it."""
    return f'"{name}"' if "." in name else name


def main() -> None:
    lines = [f"-e ./{member.relative_to(ROOT).as_posix()}\n" for member in members()]
    (ROOT / "requirements.txt").write_text(
        "# Every member of the workspace, editable.\n" + "".join(lines), "utf-8"
    )
    head = PLUGINS.read_text("utf-8").partition("[known.")[0]
    tables = [
        f"[known.{group}]\n" + "".join(f'{key(name)} = "{dist}"\n' for name, dist in table.items())
        for group, table in known().items()
    ]
    PLUGINS.write_text(head + "\n".join(tables), "utf-8")


if __name__ == "__main__":
    main()
