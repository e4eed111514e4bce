"""Beginnings of a draft: blank, a recipe, a run, an example, a configuration of LLaMA-Factory."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tunewright
from tunewright import yamlio
from tunewright.errors import RecipeError
from tunewright_web.drafts import Draft, Drafts
from tunewright_web.errors import WebError
from tunewright_web.form import Field, Form
from tunewright_web.recipe_form import read, texts_of
from tunewright_web.workspace import Workspace

_SECONDS = 60  # for a translation


@dataclass(frozen=True, slots=True)
class Example:
    """A recipe of docs/examples."""

    name: str  # path below docs/examples, without .yaml
    about: str  # its first comment


def examples_folder() -> Path | None:
    """The folder docs/examples of the checkout that this is installed from; None without one."""
    for parent in Path(tunewright.__file__).resolve().parents:
        if (parent / "docs/examples/quickstart.yaml").is_file():
            return parent / "docs/examples"
    return None


def examples() -> list[Example]:
    """The examples, the quickstart first."""
    folder = examples_folder()
    files = sorted(folder.rglob("*.yaml")) if folder else []
    found = [
        Example(file.relative_to(folder).with_suffix("").as_posix(), _about(file))
        for file in files
        if folder
    ]
    first = ("quickstart", "quickstart-lora")
    return sorted(found, key=lambda each: (each.name not in first, "/" in each.name, each.name))


def _about(file: Path) -> str:
    lines = file.read_text("utf-8").splitlines()
    said = [line.lstrip("# ") for line in lines if line.startswith("#") and "$schema" not in line]
    text = " ".join(said).partition(" tunewright train")[0].rstrip(": ")
    return text[:1].upper() + text[1:]


def from_example(form: Form, drafts: Drafts, workspace: Workspace, name: str) -> Draft:
    """A draft of an example. Its data is copied to `data/` of the workspace where it is not in it.
    Raises WebError."""
    folder = examples_folder()
    if folder is None or name not in [each.name for each in examples()]:
        raise WebError(f"there is no example {name!r:.80}", status=404)
    file = folder / f"{name}.yaml"
    recipe = yamlio.read(file)[0]
    root = (file.parent / str(recipe.pop("data_root", "."))).resolve()
    for source in _sources(recipe):
        if isinstance(source.get("path"), str):
            source["path"] = _placed(root / source["path"], workspace)
    texts = texts_of(form, recipe)
    _free_output(texts, workspace)
    return drafts.new(texts, f"example {name}")


def _sources(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    lists = [recipe.get("data"), *dict(recipe.get("eval_data") or {}).values()]
    for stage in [*recipe.get("stages", []), recipe.get("stage")]:
        if isinstance(stage, dict):
            lists += [stage.get("data"), *dict(stage.get("eval_data") or {}).values()]
    return [source for each in lists if isinstance(each, list) for source in each]


def _placed(path: Path, workspace: Workspace) -> str:
    """The data's path in the workspace, to which it is copied where it is elsewhere."""
    if workspace.holds(path):
        return workspace.shown(path)
    target = workspace.root / "data" / path.name
    target.parent.mkdir(exist_ok=True)
    for source in (path, path.with_suffix("")):  # images stand in a folder of the same name
        to = target.with_name(source.name)
        if source.exists() and not to.exists():
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, to)
    return workspace.shown(target)


def _free_output(texts: dict[str, str], workspace: Workspace) -> None:
    """Leave the name of the run to the user where it is taken."""
    name = texts.get("output", "").removeprefix("runs/")
    if not name or "/" in name or (workspace.runs / name).exists():
        texts["output"] = f"runs/{free_name(name or 'run', workspace)}"


def free_name(name: str, workspace: Workspace) -> str:
    """A name for a run that is not taken: NAME, NAME-2, NAME-3, …"""
    name, number = name.replace("/", "-"), 1
    while (workspace.runs / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return name if number == 1 else f"{name}-{number}"


def from_run(form: Form, drafts: Drafts, workspace: Workspace, run: str) -> Draft:
    """A draft of a run's recipe, without what is the default anyway. Raises WebError."""
    file = workspace.run(run) / "recipe.yaml"
    try:
        recipe = yamlio.read(file)[0]
    except RecipeError as error:
        raise WebError(error.problem, error.hint, status=422) from error
    if not isinstance(recipe, dict):
        raise WebError(f"the recipe of {run!r} holds no sections", status=422)
    texts = without_defaults(form, texts_of(form, recipe))
    root = Path(texts.get("data_root", ""))
    if root.is_absolute() and root.resolve() == workspace.root:
        del texts["data_root"]
    elif texts.get("data_root") and workspace.holds(root.resolve()):
        texts["data_root"] = workspace.shown(root.resolve())
    _free_output(texts, workspace)
    return drafts.new(texts, f"run {run}")


def without_defaults(form: Form, texts: Mapping[str, str]) -> dict[str, str]:
    """The texts whose values differ from the defaults; the recipe means the same."""
    found = dict(texts)
    for name, text in texts.items():
        owner, _, key = name.rpartition(".")
        field = _field(form, texts, owner, key)
        if (key in ("data", "eval_data") and text in ("[]", "{}")) or (
            field is not None and not field.required and _is_default(field, text)
        ):
            del found[name]
    for key, section in form.sections.items():
        own = [name for name in found if name.startswith(f"{key}.")]
        if section.many and key != "stages":
            names = [
                found[f"{key}.{n}.name"] for n in range(len(own)) if f"{key}.{n}.name" in found
            ]
            is_default = len(own) == len(names) and tuple(names) == section.defaults
        else:
            is_default = own == [f"{key}.name"] and found[own[0]] in section.defaults
        for name in own if is_default else ():
            del found[name]
    return found


def _field(form: Form, texts: Mapping[str, str], owner: str, key: str) -> Field | None:
    first, _, rest = owner.partition(".")
    fields = form.groups.get(owner, ())
    if first in form.sections and (owner == first or rest.isdecimal()):
        section = form.sections[first]
        name = texts.get(f"{owner}.name", "")
        plugin = section.chosen(name) if name else section.usual
        fields = plugin.fields if plugin and key != "name" else ()
    elif "data" in first or ".data." in owner or ".eval_data." in owner:
        fields = form.entry
    return next((field for field in fields if field.key == key), None)


def _is_default(field: Field, text: str) -> bool:
    from tunewright_web.values import parse

    try:
        value = parse(field, text)
    except ValueError:
        return False
    empty = field.default is None and value in ([], {}) and not isinstance(value, bool)
    return value == field.default or empty


def from_yaml(form: Form, drafts: Drafts, text: str, begun: str = "") -> Draft:
    """A draft of a recipe's text. Unknown keys are kept for the check to name. Raises WebError."""
    try:
        recipe = yamlio.parse(text, "recipe")[0]
    except RecipeError as error:
        place = error.place.replace("recipe:", "line ")
        raise WebError(f"{place}: {error.problem}", error.hint, status=422) from error
    if not isinstance(recipe, dict):
        hint = "it begins with lines such as `model: …`"
        raise WebError("the text holds no sections of a recipe", hint, status=422)
    texts = texts_of(form, recipe)
    again = read(form, texts).recipe
    changed = [str(key) for key in recipe if recipe[key] not in (None, again.get(key))]
    notes = [f"{key}: is not written as recipes are; look at it" for key in changed]
    return drafts.new(texts, begun or "recipe", notes)


def from_llamafactory(
    form: Form, drafts: Drafts, workspace: Workspace, text: str, begun: str = ""
) -> Draft:
    """A draft of a configuration of LLaMA-Factory, translated by `tunewright import`. What has no
    counterpart is among the draft's notes. Raises WebError."""
    with tempfile.TemporaryDirectory(prefix="tunewright-web-") as folder:
        source = Path(folder, "config.yaml")
        source.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "tunewright", "import", "llamafactory", str(source)]
        try:
            done = subprocess.run(
                command, cwd=workspace.root, capture_output=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise WebError(f"the translation took over {_SECONDS} seconds", status=422) from error
        said = done.stderr.decode("utf-8", "replace").replace(str(source), "config.yaml")
        made = done.stdout.decode("utf-8", "replace").replace(folder + os.sep, "")
    lines = [line for line in said.splitlines() if line.strip()]
    if done.returncode:
        problem = lines[-1].removeprefix("error: ") if lines else "it cannot be translated"
        raise WebError(problem, status=422)
    if made.startswith("tunewright "):
        raise WebError("this configuration trains nothing", f"its counterpart: {made}", status=422)
    draft = from_yaml(form, drafts, made, begun or "LLaMA-Factory")
    draft.notes += [line for line in lines if line not in draft.notes]
    return drafts.new(draft.texts, draft.begun, draft.notes)
