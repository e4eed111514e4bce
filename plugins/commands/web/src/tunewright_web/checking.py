"""Check of a draft's recipe: what was typed, paths, then everything that the kernel checks."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.check import RecipeProblems, Resolved, resolve
from tunewright.detection import detect_family
from tunewright.errors import Problem, RecipeError, TunewrightError
from tunewright.recipe import mask
from tunewright.urls import is_url
from tunewright_web.errors import WebError
from tunewright_web.form import Form
from tunewright_web.recipe_form import Reading, read
from tunewright_web.values import as_yaml
from tunewright_web.workspace import Workspace

Path_ = tuple[str | int, ...]
_SCHEMES = ("hf", "s3", "gs", "az", "https")  # of data that is not here
TAKEN = "is there already"  # how the problem of an output that exists ends
_DATA_PATHS = ("path", "dataset_info", "media_root")


@dataclass
class Checked:
    """A recipe, and what is wrong with it."""

    reading: Reading
    problems: list[Problem] = field(default_factory=list)
    resolved: Resolved | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        return self.reading.recipe

    @property
    def yaml(self) -> str:
        """The recipe as it is written to a file."""
        return as_yaml(self.recipe) if self.recipe else ""

    @property
    def shown(self) -> str:
        """The recipe without secrets."""
        return as_yaml(mask(self.recipe)) if self.recipe else ""

    def by_field(self) -> dict[str, list[Problem]]:
        """Problems by the name of the text that is wrong."""
        found: dict[str, list[Problem]] = {}
        for problem in self.problems:
            found.setdefault(self.reading.name(problem.path), []).append(problem)
        return found


def check(form: Form, texts: Mapping[str, str], workspace: Workspace) -> Checked:
    """Read and check the texts of a draft."""
    found = Checked(read(form, texts))
    found.problems = list(found.reading.problems)
    paths = path_problems(form, found.recipe, workspace)
    found.problems += paths
    found.problems += output_problems(found.recipe, workspace)
    said = {problem.path for problem in found.problems}
    try:
        found.resolved = resolved(found.recipe, workspace, look=not paths)
    except TunewrightError as error:
        problems = getattr(error, "problems", None) or [Problem((), error.problem, error.hint)]
        found.problems += [each for each in problems if each.path not in said]
    return found


def resolved(recipe: Mapping[str, Any], workspace: Workspace, *, look: bool) -> Resolved:
    """The recipe, checked by the kernel as if it stood in the workspace. look: whether its data is
    looked for. Raises RecipeError."""
    value = dict(recipe)
    value.setdefault("data_root", ".")
    if isinstance(value["data_root"], str):
        value["data_root"] = str(workspace.root / value["data_root"])
    model = value.get("model")
    if isinstance(model, str) and model != "tiny" and (workspace.root / model).is_dir():
        value["model"] = str(workspace.root / model)
    found = resolve(value, look=look)
    if found.recipe.family is None:
        try:
            detect_family(found.recipe.model)
        except RecipeError as error:
            raise RecipeProblems(
                [Problem(("family",), error.problem, error.hint)], found.source
            ) from error
    return found


def path_problems(form: Form, recipe: Mapping[str, Any], workspace: Workspace) -> list[Problem]:
    """Problems of paths that are not below the workspace or an allowed folder."""
    return list(_path_problems(form, recipe, workspace))


def _path_problems(
    form: Form, recipe: Mapping[str, Any], workspace: Workspace
) -> Iterator[Problem]:
    named = _options(form, recipe, workspace.root)
    for path, text, is_data in (*_paths(recipe, workspace.root), *named):
        scheme = text.partition("://")[0].lower() if is_url(text) else ""
        if is_data and scheme.rpartition("::")[2] in _SCHEMES:
            continue
        base = "" if not is_data else recipe.get("data_root") or ""
        literal = text.partition("*")[0].partition("?")[0].partition("[")[0] if is_data else text
        full = f"{base}/{literal}" if base and not literal.startswith(("/", "~")) else literal
        try:
            workspace.readable(full or ".")
        except WebError as error:
            if error.status != 404:  # what is missing is named by the kernel
                yield Problem(path, error.error, error.hint)


def _paths(recipe: Mapping[str, Any], root: Path) -> Iterator[tuple[Path_, str, bool]]:
    """Every path that a recipe names, as far as it is known: its place, and whether it starts at
    data_root."""
    for key in ("model", "data_root"):
        text = recipe.get(key)
        if isinstance(text, str) and (key != "model" or _is_path(text, root)):
            yield (key,), text, False
    dataset = recipe.get("dataset")
    for key in ("cache", "prepared"):
        if isinstance(dataset, dict) and isinstance(dataset.get(key), str):
            yield ("dataset", key), dataset[key], True
    yield from _data(recipe, ())
    stages: Any = recipe.get("stages", [])
    stages = stages if isinstance(stages, list) else []
    stages = [*stages, recipe["stage"]] if "stage" in recipe else stages
    for number, stage in enumerate(stages):
        if isinstance(stage, dict):
            yield from _data(stage, ("stages", number))


def _options(
    form: Form, recipe: Mapping[str, Any], root: Path
) -> Iterator[tuple[Path_, str, bool]]:
    """Options that their plugins declare as paths."""
    for key, section in form.sections.items():
        written = recipe.get(key, recipe.get("stage") if key == "stages" else None)
        for number, each in enumerate(written if isinstance(written, list) else [written]):
            if not isinstance(each, dict):
                continue
            plugin = section.chosen(str(each.get("name") or "")) or section.usual
            at = (key, number) if section.many else (key,)
            for known in plugin.fields if plugin else ():
                text = each.get(known.key)
                if known.widget == "path" and isinstance(text, str) and _is_path(text, root):
                    yield (*at, known.key), text, False


def _data(owner: Mapping[str, Any], at: Path_) -> Iterator[tuple[Path_, str, bool]]:
    lists: list[tuple[Path_, Any]] = [((*at, "data"), owner.get("data"))]
    if isinstance(sets := owner.get("eval_data"), dict):
        lists += [((*at, "eval_data", name), listed) for name, listed in sets.items()]
    for path, listed in lists:
        for number, source in enumerate(listed if isinstance(listed, list) else ()):
            for key in _DATA_PATHS if isinstance(source, dict) else ():
                text = source.get(key)
                if isinstance(text, str) and not (key == "path" and source.get("hub")):
                    yield (*path, number, key), text, True


def _is_path(text: str, root: Path) -> bool:
    """Whether a text is a path here, and no id of a hub such as ORG/NAME, nor `tiny`."""
    if "\0" not in text and len(text) < 1000 and (root / text).exists():
        return True
    return text.startswith(("/", "~", ".", "runs/")) or text.count("/") > 1 or is_url(text)


def output_problems(recipe: Mapping[str, Any], workspace: Workspace) -> Iterable[Problem]:
    """Problems of the run's folder: it is one new name below `runs/`."""
    text = recipe.get("output")
    if not isinstance(text, str):
        return ()  # missing, or no text: the kernel says so
    if not text.startswith("runs/"):
        return [
            Problem(("output",), f"found {text!r:.80}, expected runs/NAME", "such as runs/first")
        ]
    try:
        folder = workspace.output(text)
    except WebError as error:
        return [Problem(("output",), error.error.removeprefix("output: "), error.hint)]
    if folder.exists():
        return [Problem(("output",), f"{text!r} is there already", "choose another name")]
    return ()
