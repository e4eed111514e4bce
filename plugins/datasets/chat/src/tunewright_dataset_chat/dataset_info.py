"""Read LLaMA-Factory's dataset_info.json: one of its data sets becomes a source.

Unlike in LLaMA-Factory, columns and tags that the file leaves out keep their default names, as its
own README says.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunewright import Problem, RecipeError
from tunewright.errors import did_you_mean
from tunewright.jsontext import RepeatedKeys, unique_keys
from tunewright.urls import is_url
from tunewright_dataset_chat import files, local_paths
from tunewright_dataset_chat.entry import Entry

FILE = "dataset_info.json"
_KEYS = (
    "hf_hub_url",
    "ms_hub_url",
    "om_hub_url",
    "script_url",
    "cloud_file_name",
    "file_name",
    "formatting",
    "ranking",
    "subset",
    "split",
    "folder",
    "num_samples",
    "columns",
    "tags",
)
_NO_TEXT = ("ranking", "num_samples", "columns", "tags")
_HUBS = {"hf": "hf_hub_url", "modelscope": "ms_hub_url", "modelers": "om_hub_url"}
_BY_PATH = "copy it there, or name it in the recipe with `path:` in place of `dataset_info:`"
_CLOUD = ("s3://", "gs://", "gcs://", "az://")

_COLUMNS = (
    "prompt",
    "query",
    "response",
    "history",
    "messages",
    "system",
    "tools",
    "images",
    "videos",
    "audios",
    "chosen",
    "rejected",
    "kto_tag",
)
_TAGS = (
    "role_tag",
    "content_tag",
    "user_tag",
    "assistant_tag",
    "observation_tag",
    "function_tag",
    "system_tag",
)

_SHARED = {name: name for name in ("system", "tools", "images", "videos", "audios")}
#: `formatting` → its conversation columns → ours
_CONVERSATION = {
    "alpaca": {"prompt": "instruction", "query": "input", "history": "history", **_SHARED},
    "sharegpt": {"messages": "conversations", **_SHARED},
    "openai": {"messages": "messages", **_SHARED},
}
#: our format → further columns that it reads
_ANSWERS = {
    "alpaca": {"response": "output"},
    "sharegpt": {},
    "openai": {},
    "preference": {"chosen": "chosen", "rejected": "rejected"},
    "unpaired": {"response": "output", "kto_tag": "label"},
    "prompts": {},
}
#: `formatting` → its tags → ours. openai detects calls by their key, and needs no tag for them
_TAGGED = {
    "sharegpt": {name: name.removesuffix("_tag") for name in _TAGS}
    | {"function_tag": "function_call"},
    "openai": {name: name.removesuffix("_tag") for name in _TAGS if name != "function_tag"}
    | {"observation_tag": "tool"},
}


def resolve(entry: Entry, root: Path, place: str) -> tuple[Entry, str]:
    """Resolve a source that refers to dataset_info.json. Returns the source and a note. Raises
    RecipeError.

    Fields of the recipe's own source override it; its `hub` chooses between several hubs.
    """
    assert entry.dataset_info and entry.name
    file = local_paths.resolve(root, entry.dataset_info, f"{place}.dataset_info")
    file = file / FILE if file.is_dir() else file
    info = _read(file, entry.name, f"{place}.dataset_info")
    at = f"{file}: {entry.name}"
    formatting = info.get("formatting") or "alpaca"
    if formatting not in _CONVERSATION:
        hint = f"there is: {', '.join(_CONVERSATION)}"
        raise RecipeError(f"found {formatting!r}", place=f"{at}.formatting", hint=hint)
    columns = _names(info, "columns", _COLUMNS, at)
    tags = _names(info, "tags", _TAGS, at)
    made, note = _where(info, entry, file.parent, at)
    name = entry.format.name if entry.format else _format(formatting, info, columns)
    renamed = {
        ours: columns[theirs]
        for theirs, ours in _ours(formatting, name).items()
        if theirs in columns
    }
    made |= {
        "format": {"name": name},
        "columns": {ours: theirs for ours, theirs in renamed.items() if ours != theirs}
        | entry.columns,
        "tags": {ours: tags[t] for t, ours in _TAGGED.get(formatting, {}).items() if t in tags}
        | entry.tags,
    }
    own = entry.model_dump(
        exclude_unset=True, exclude={"dataset_info", "name", "hub", "columns", "tags"}
    )
    try:
        found = Entry.model_validate({"media_root": str(file.parent.resolve())} | made | own)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{where}: {first['msg']}", place=at) from error
    return found, note


def problems(recipe: Any) -> Iterator[Problem]:
    """Problems in finding a recipe's sources that name a data set of a dataset_info.json."""
    root = Path(recipe.recipe.data_root)
    for number, stage in enumerate(recipe.stages):
        own = ("stages", number)
        groups = {
            (*(() if stage.section.data is None else own), "data"): stage.data,
            **{
                (*(() if stage.section.eval_data is None else own), "eval_data", name): entries
                for name, entries in stage.eval_data.items()
            },
        }
        for at, entries in groups.items():
            for index, entry in enumerate(entries):
                if entry.dataset_info:
                    yield from _problem(entry, root, (*at, index))


def _problem(entry: Entry, root: Path, at: tuple[str | int, ...]) -> Iterator[Problem]:
    try:
        found, _ = resolve(entry, root, "")
        if not found.hub and not is_url(found.path or ""):
            files.find(str(found.path), root, found.wanted(""))
    except RecipeError as error:
        place, _, field = error.place.rpartition(".")
        if place:  # in the file, not in the recipe
            yield Problem(at, f"{error.place}: {error.problem}", error.hint)
        else:
            yield Problem((*at, field) if field else at, error.problem, error.hint)


def _read(file: Path, name: str, place: str) -> dict[str, Any]:
    if not file.is_file():
        raise RecipeError(
            f"there is no file {file}",
            place=place,
            hint="give the folder that holds it, or the file",
        )
    try:
        every = json.loads(file.read_bytes(), object_pairs_hook=unique_keys)
    except RepeatedKeys as error:
        hint = "leave one of them out"
        raise RecipeError(f"{file}: {error}", place=place, hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{file} is not valid JSON: {error}", place=place) from error
    if not isinstance(every, dict):
        raise RecipeError(f"{file} holds no data sets by name", place=place)
    if name not in every:
        raise RecipeError(
            f"{file} has no data set {name!r}", place=place, hint=did_you_mean(name, every)
        )
    info = every[name]
    _check_keys(info, _KEYS, f"{file}: {name}")
    for key, value in info.items():
        if key not in _NO_TEXT and not isinstance(value, str | None):
            raise RecipeError(f"found {value!r}, expected text", place=f"{file}: {name}.{key}")
    return dict(info)


def _check_keys(found: Any, known: tuple[str, ...], place: str) -> None:
    if not isinstance(found, dict):
        raise RecipeError(f"found {found!r}, expected an object", place=place)
    for key in found:
        if key not in known:
            raise RecipeError("unknown key", place=f"{place}.{key}", hint=did_you_mean(key, known))


def _names(info: dict[str, Any], key: str, known: tuple[str, ...], at: str) -> dict[str, str]:
    found = info.get(key) or {}
    _check_keys(found, known, f"{at}.{key}")
    for name, value in found.items():
        if value is not None and not isinstance(value, str):
            raise RecipeError(f"found {value!r}, expected a name", place=f"{at}.{key}.{name}")
    return {name: value for name, value in found.items() if value}


def _format(formatting: str, info: dict[str, Any], columns: dict[str, str]) -> str:
    if info.get("ranking"):
        return "preference"
    if "kto_tag" in columns:
        return "unpaired"
    if formatting == "alpaca" and "prompt" in columns and "response" not in columns:
        return "text"  # in LLaMA-Factory, pretraining texts are prompts without answers
    return formatting


def _ours(formatting: str, name: str) -> dict[str, str]:
    """Their columns → those of our format; empty for formats that LLaMA-Factory lacks."""
    if name == "text":
        return {"prompt": "text"}
    answers = _ANSWERS.get(name)
    return {} if answers is None else _CONVERSATION[formatting] | answers


def _where(info: dict[str, Any], entry: Entry, folder: Path, at: str) -> tuple[dict[str, Any], str]:
    """Path or hub of the data, in LLaMA-Factory's order: hub, script, cloud, file."""
    made: dict[str, Any] = {"split": info["split"]} if info.get("split") else {}
    note = ""
    if (count := info.get("num_samples")) is not None:
        made["limit"] = count
        note = f"num_samples: the first {count} records, where LLaMA-Factory draws them at random"
    hubs = [hub for hub, key in _HUBS.items() if info.get(key)]
    if entry.hub and entry.hub not in hubs:
        raise RecipeError(
            f"names no data set of {entry.hub}", place=at, hint=did_you_mean(entry.hub, hubs)
        )
    if hubs:
        hub = entry.hub or hubs[0]
        _check_inside(info.get("folder") or "", f"{at}.folder")
        return made | {
            "hub": hub,
            "path": info[_HUBS[hub]],
            "subset": info.get("subset"),
            "folder": info.get("folder"),
        }, note
    if info.get("script_url"):
        hint = "convert the data set once, and name its file"
        raise RecipeError(
            "is a script, and no code of data sets is run", place=f"{at}.script_url", hint=hint
        )
    if cloud := info.get("cloud_file_name"):
        if not str(cloud).startswith(_CLOUD):
            expected = ", ".join(_CLOUD)
            hint = "the recipe may name other places with `path`"
            raise RecipeError(
                f"found {cloud!r}, expected {expected}", place=f"{at}.cloud_file_name", hint=hint
            )
        return made | {"path": cloud}, note
    name = info.get("file_name")
    if not isinstance(name, str) or not name or is_url(name):
        raise RecipeError(
            f"found {name!r}, expected a file or a folder beside it", place=f"{at}.file_name"
        )
    _check_inside(name, f"{at}.file_name")
    path = local_paths.resolve(folder, name, f"{at}.file_name")
    if local_paths.leads_out(path, folder):
        raise RecipeError(
            f"{local_paths.shown(path)} is a link that leads out of its folder",
            place=f"{at}.file_name",
            hint=_BY_PATH,
        )
    return made | {"path": str(path.absolute())}, note


def _check_inside(name: str, place: str) -> None:
    """Raise RecipeError if the path leads out of the folder: the recipe did not name it."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith("~") or Path(name).is_absolute():
        raise RecipeError(
            f"found {local_paths.shown(name)!r}, which leads out of its folder",
            place=place,
            hint=_BY_PATH,
        )
