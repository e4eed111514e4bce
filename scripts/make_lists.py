"""Write the lists of members from their pyproject.toml files.

- requirements.txt: the members of the default install
- requirements-envs.txt: those whose libraries have an environment of their own, `[tool.tunewright]
  env = "NAME"`; `scripts/dev.py install` installs them without libraries
- plugins/bundles: distributions that only require others, from bundles.toml
- distributions.toml of the kernel: the members with their descriptions, for `plugins search`
- the tables [known.…] of the kernel's plugins.toml: what to install for a missing name

    python scripts/make_lists.py
"""

import json
import tomllib
from pathlib import Path

import bundles

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "kernel/src/tunewright/plugins.toml"
DISTRIBUTIONS = ROOT / "kernel/src/tunewright/distributions.toml"
#: folder below plugins/ → entry-point groups of its members; in the order of the lists
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
    "environments": ("environment",),
    "stages": ("stage",),
    "loggers": ("logger",),
    "engines": ("engine",),
    "launchers": ("launcher",),
    "exporters": ("exporter",),
    "evaluators": ("evaluator",),
    "commands": ("command",),
    "bundles": (),
}


def members() -> list[Path]:
    """Folders of all members: the kernel and plugins/hf first, conformance last."""
    found = [
        path.parent
        for folder in FOLDERS
        for path in sorted((ROOT / "plugins" / folder).glob("*/pyproject.toml"))
    ]
    return [ROOT / "kernel", ROOT / "plugins/hf", *found, ROOT / "tests/conformance"]


def env_of(member: Path) -> str:
    """The environment in which a member's libraries are, "" for the default install."""
    data = tomllib.loads((member / "pyproject.toml").read_text("utf-8"))
    return str(data.get("tool", {}).get("tunewright", {}).get("env", ""))


def known() -> dict[str, dict[str, str]]:
    """Group → name → distribution that provides it."""
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


def distributions() -> str:
    """The members below plugins/, with their descriptions, as TOML."""
    tables = []
    for member in members():
        project = tomllib.loads((member / "pyproject.toml").read_text("utf-8"))["project"]
        lines = [f"[{project['name']}]", f"summary = {json.dumps(project['description'])}"]
        lines += [f'env = "{env}"'] if (env := env_of(member)) else []
        tables.append("\n".join(lines) + "\n")
    return "# Written by scripts/make_lists.py from the members' pyproject.toml.\n" + "\n".join(
        tables
    )


def key(name: str) -> str:
    """A name as a TOML key; quoted if it contains a dot."""
    return f'"{name}"' if "." in name else name


def main() -> None:
    bundles.write()
    lists: dict[bool, list[str]] = {False: [], True: []}
    for member in members():
        line = f"-e ./{member.relative_to(ROOT).as_posix()}\n"
        lists[bool(env_of(member))].append(line)
    (ROOT / "requirements.txt").write_text(
        "# Every member of the default install, editable.\n" + "".join(lists[False]), "utf-8"
    )
    (ROOT / "requirements-envs.txt").write_text(
        "# Members whose libraries have an environment of their own: pip install --no-deps\n"
        + "".join(lists[True]),
        "utf-8",
    )
    head = PLUGINS.read_text("utf-8").partition("[known.")[0]
    tables = [
        f"[known.{group}]\n" + "".join(f'{key(name)} = "{dist}"\n' for name, dist in table.items())
        for group, table in known().items()
    ]
    PLUGINS.write_text(head + "\n".join(tables), "utf-8")
    DISTRIBUTIONS.write_text(distributions(), "utf-8")


if __name__ == "__main__":
    main()
