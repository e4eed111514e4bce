"""Model card (README.md) and merge.json of a merged model. Imports no torch."""

import json
from pathlib import Path, PurePath
from typing import Any

import yaml


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """Write the card and the facts of a merge into its folder. Of paths, the facts have the last
    part only: the others are of this machine."""
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (folder / "merge.json").write_text(text + "\n", encoding="utf-8")
    hub = [each["name"] for each in facts["models"] if each["is_hub_id"]]
    head: dict[str, Any] = {"base_model": hub} if hub else {}
    head |= {"library_name": "transformers", "tags": ["merge", "tunewright"]}
    lines = ["---", yaml.safe_dump(head, sort_keys=False).rstrip(), "---", "", f"# {facts['name']}"]
    lines += ["", f"Merged with Tunewright {facts['tunewright']}.", ""]
    options = ", ".join(f"{name} {value}" for name, value in facts["options"].items())
    lines += [f"Method: {facts['method']}" + (f" ({options})" if options else "") + ".", ""]
    lines += ["| model | weight |", "|---|---|"]
    for each in facts["models"]:
        weight = "base" if each["is_base"] else f"{each['weight']:g}"
        lines.append(f"| {each['name']} | {weight} |")
    lines += ["", "SHA-256 of the files with weights:", ""]
    for each in facts["models"]:
        lines += [f"- {each['name']}, {name}: `{sha}`" for name, sha in each["sha256"].items()]
    lines += ["", "A licence is not named: those of all models apply."]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def shown(name: str) -> tuple[str, bool]:
    """The name of a model as others may see it, and whether it is a hub id. A part of a run has
    the run's name too."""
    path = Path(name).expanduser()
    if name != "tiny" and not path.exists():
        return name, True
    parts = PurePath(path).parts
    return "/".join(parts[-3:] if "checkpoints" in parts[-2:] else parts[-1:]), False
