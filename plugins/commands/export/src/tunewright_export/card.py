"""Model card of an export (README.md), from the run folder. Imports no torch."""

from pathlib import Path, PurePath
from typing import Any

import yaml

from tunewright.words import counted

#: of the recipe, what says nothing of the model and may say something of the machine
_PRIVATE = ("output", "data_root", "launch", "loggers", "engine")


def write_card(folder: Path, state: dict[str, Any], export: dict[str, Any]) -> None:
    """Write the card into an export's folder, for people and for hubs.

    state: of the run's folder, perhaps without results. export: facts of export.json. Of paths, the
    last part is given: the others are of this machine.
    """
    recipe = {key: value for key, value in state["recipe"].items() if key not in _PRIVATE}
    recipe = _without_folders(recipe)
    library = "peft" if (folder / "adapter_config.json").is_file() else "transformers"
    head: dict[str, Any] = {"library_name": library, "tags": ["tunewright"]}
    if recipe["model"] != "tiny" and not Path(state["recipe"]["model"]).expanduser().exists():
        head = {"base_model": recipe["model"], **head}
    versions = state["libraries"]
    name = PurePath(state["recipe"].get("output", recipe["model"])).name
    lines = ["---", _yaml(head), "---", "", f"# {name}", ""]
    done = "trained" if "data" in recipe else "exported"
    lines += [f"`{recipe['model']}`, {done} with Tunewright {versions['tunewright']}.", ""]
    if part := state.get("part"):
        lines += [f"The weights are those of `{part}`, from before the end of the run.", ""]
    lines += [_result(stage) for stage in state["stages"]]
    if "data" in recipe:
        lines += ["", "## Data", "", *(f"- {_source(each)}" for each in recipe["data"])]
    lines += ["", "## Export", "", _exported(export)]
    if "data" in recipe:
        lines += ["", "## Recipe", "", "```yaml", _yaml(recipe), "```"]
    lines += ["", "## Versions", ""]
    lines += [f"- {name} {version}" for name, version in versions.items()]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _result(stage: dict[str, Any]) -> str:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in stage["metrics"].items())
    done = f"{counted(stage['steps'], 'step')} over {counted(stage['rows'], 'row')}"
    return f"- {stage['name']}: {done}. {numbers}"


def _source(entry: dict[str, Any]) -> str:
    name = entry.get("path") or entry.get("name") or entry.get("dataset_info")
    others = {key: value for key, value in entry.items() if key in ("hub", "subset", "split")}
    return " ".join([f"`{name}`", *(f"{key}: {value}" for key, value in others.items())])


def _exported(export: dict[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in export["options"].items())
    said = f"Format `{export['format']}` ({options})."
    if export["verified"]:
        said += (
            f" Logits differ from the run's by {export['largest_difference']:.1e} of the largest "
            f"(tolerance {export['tolerance']:g})."
        )
    return said


def _without_folders(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_folders(each) for key, each in value.items()}
        case list():
            return [_without_folders(each) for each in value]
        case str() if PurePath(value).is_absolute() or value.startswith("~"):
            return PurePath(value).name
    return value


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.rstrip()
