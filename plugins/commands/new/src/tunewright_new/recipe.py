"""Create a recipe: questions, a look at the data, and the file."""

import contextlib
import json
import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import typer
import yaml
from pydantic import ValidationError

from tunewright import RecipeError, TunewrightError, check, registry
from tunewright.descriptions import described
from tunewright.terminal import printable
from tunewright_new.look import Look, look, stage_for

SCHEMA = "recipe.schema.json"  # beside the recipe, where editors find it on any machine
# adapters that train the model's own weights, which need a lower learning rate
WHOLE_MODEL = (
    "full",
    "freeze",
)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)  # tokens

Prompt = Callable[..., Any]  # like typer.prompt


@dataclass
class Answers:
    """Answers to the questions. None: not given."""

    model: str | None = None
    family: str | None = None
    template: str | None = None
    data: str | None = None
    stage: str | None = None
    adapter: str | None = None
    loggers: list[str] | None = None  # besides the default ones
    output: str | None = None
    # kind → required options
    options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def section(self, kind: str) -> Any:
        """The section of a recipe for a kind: a plugin's name, or a mapping with its required
        options."""
        name, options = getattr(self, kind), self.options.get(kind)
        return {"name": name, **options} if options else name


# ---- questions -----------------------------------------------------------------------------------


def ask(given: Answers, file: Path, prompt: Prompt | None) -> Answers:
    """Ask for what is not given, with `prompt`; without one, take the default. Raises RecipeError
    if there is no default, and if the recipe exists."""
    if file.exists():
        raise RecipeError("is there already", place=str(file), hint="give another name")

    def question(name: str, text: str, default: str | None, known: list[str] | None = None) -> str:
        found: str | None = getattr(given, name)
        if found is not None or prompt is None:
            if (found := found or default) is None:
                raise RecipeError("is needed", place=f"--{name}")
            return found if known is None else _one_of(found, known)
        words = f"{text} ({', '.join(known)})" if known else text
        answer: str = prompt(words, default=default, value_proc=lambda said: _retry(said, known))
        return answer

    model = question("model", "Model: hub id, folder, or tiny", None)
    data = question("data", "Data: file, folder, or pattern such as data/*.jsonl", None)
    default = stage_for(data) if given.stage is None else None
    stage = question("stage", "Stage", default, _ready("stage"))
    options = {"stage": _options("stage", stage, prompt)}
    adapter = question("adapter", "Adapter", "lora", _ready("adapter"))
    options["adapter"] = _options("adapter", adapter, prompt)
    default = _family(model) if given.family is None else None
    family = default or question("family", "Model family", None, _installed("family"))
    others = [name for name in _installed("logger") if name not in _default_loggers()]
    loggers = [_one_of(name, others) for name in given.loggers or []]
    if given.loggers is None and prompt is not None and others:
        words = f"Also log to ({', '.join(others)}; or none)"
        loggers = prompt(words, default="none", value_proc=lambda said: _several(said, others))
    named = file.stem if file.stem != "recipe" else re.sub(r"[^\w.-]+", "", Path(data).stem)
    output = question("output", "Run folder", f"runs/{named or 'run'}")
    return Answers(model, family, given.template, data, stage, adapter, loggers, output, options)


def _options(kind: str, name: str, prompt: Prompt | None) -> dict[str, Any]:
    """Values of a plugin's required options: asked for, in YAML, or the plugin's examples."""
    found = _required(kind, name)
    options = registry.load(registry.find(kind, name)).Options

    def read(key: str, said: str) -> Any:
        try:
            value = yaml.safe_load(said)
            options.model_validate(found | {key: value})
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"no YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            raise typer.BadParameter(
                error.errors()[0]["msg"].removeprefix("Value error, ")
            ) from error
        return value

    if prompt is None:
        return found
    for key in found:
        found[key] = prompt(
            f"{key} of {name}", default=_plain(found[key]), value_proc=partial(read, key)
        )
    return found


def _one_of(name: str, known: list[str]) -> str:
    if name not in known:
        raise RecipeError(
            f"found {name!r}, expected one of {', '.join(known)}", place="command line"
        )
    return name


def _retry(said: str, known: list[str] | None) -> str:
    """Return the answer, or ask again if it is not one of `known`."""
    if known is not None and said not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known)}")
    return said


def _several(said: str, known: list[str]) -> list[str]:
    """Split a comma-separated answer; `none` gives an empty list."""
    return [] if said == "none" else [_retry(name.strip(), known) for name in said.split(",")]


def _installed(kind: str) -> list[str]:
    return [entry.name for entry in registry.entries(kind)]


def _ready(kind: str) -> list[str]:
    """Installed plugins of a kind whose options all have a default or an example."""
    ready = []
    for name in _installed(kind):
        with contextlib.suppress(TunewrightError):  # broken plugins are not offered
            ready += [] if None in _required(kind, name).values() else [name]
    return ready


def _required(kind: str, name: str) -> dict[str, Any]:
    """Required options of a plugin with their examples (None: no example), and where options depend
    on each other those of the examples in the JSON schema."""
    options: Any = registry.load(registry.find(kind, name)).Options
    fields = options.model_fields
    found = {
        key: (field.examples or [None])[0] for key, field in fields.items() if field.is_required()
    }
    together = (options.model_config.get("json_schema_extra") or {}).get("examples")
    if together and None not in found.values():
        try:
            options(**found)
        except ValidationError:
            found |= together[0]
    return found


def _default_loggers() -> list[str]:
    names: list[str] = registry.shipped_table()["defaults"]["loggers"]
    return names


def _family(model: str) -> str | None:
    """Family according to the model's config.json; None if it is unknown or cannot be read."""
    from tunewright.detection import detect_family

    try:
        return detect_family(model)
    except TunewrightError:
        return None


# ---- the file ------------------------------------------------------------------------------------


def write_recipe(file: Path, answers: Answers) -> None:
    """Read some of the data, write and check the recipe and its schema, and print the next steps.
    Raises TunewrightError."""
    from tunewright.schema_cache import schema

    file.parent.mkdir(parents=True, exist_ok=True)
    path = _from_recipe(str(answers.data), file)
    print(printable(f"looking at {answers.data} ..."), flush=True)
    seen = look(answers, path, file.resolve().parent)
    for line in seen.lines():
        print(printable(f"  {line}"))
    text = _text(file, answers, path, seen)
    _write_schema(file.with_name(SCHEMA), schema())
    with file.open("x", encoding="utf-8") as stream:
        stream.write(text)
    check.resolve(file)
    print(printable(f"\nwritten: {file}\n"))
    for verb in ("data preview RECIPE", "train RECIPE --smoke", "train RECIPE"):
        print(printable(f"  tunewright {verb.replace('RECIPE', str(file))}"))


def _from_recipe(data: str, file: Path) -> str:
    """A path relative to the recipe's folder."""
    if "://" in data or Path(data).is_absolute():
        return data
    return Path(os.path.relpath(data, file.resolve().parent)).as_posix()


def _text(file: Path, answers: Answers, path: str, seen: Look) -> str:
    source = resources.files("tunewright_new").joinpath("recipe.yaml.txt").read_text("utf-8")
    longest = seen.longest
    length = next((n for n in LENGTHS if n >= longest), LENGTHS[-1]) if longest else 2048
    words = {
        "schema": SCHEMA,
        "model": _plain(answers.model),
        "family": _plain(answers.family),
        "template": f"template: {_plain(answers.template)}\n" if answers.template else "",
        "adapters": ", ".join(_ready("adapter")),
        "adapter": _plain(answers.section("adapter")),
        "about_adapter": _about("adapter", answers),
        "found": "\n".join(f"# {' '.join(printable(line).split())}" for line in seen.lines()),
        "data": _plain(path),
        "stages": ", ".join(_ready("stage")),
        "stage": _plain(answers.section("stage")),
        "about_stage": _about("stage", answers),
        "learning_rate": _learning_rate(answers),
        "lengths": f"The longest example read has {longest:,}."
        if longest
        else "`tunewright data preview` shows the lengths of yours.",
        "max_length": str(length),
        "all_loggers": ", ".join(_installed("logger")),
        "loggers": _plain([*_default_loggers(), *(answers.loggers or [])]),
        "output": _plain(answers.output),
    }
    return Template(source).substitute(words)


def _about(kind: str, answers: Answers) -> str:
    """Comment lines on a plugin's required options."""
    if not (given := answers.options.get(kind)):
        return ""
    fields = described(registry.load(registry.find(kind, getattr(answers, kind))).Options)
    about = [f"{key}: {fields[key].rstrip('.')}." for key in given]
    about += (
        ["Example values: replace them."]
        if given == _required(kind, getattr(answers, kind))
        else []
    )
    lines = [
        line
        for text in about
        for line in textwrap.wrap(" ".join(text.split()), 118, break_on_hyphens=False)
    ]
    return "".join(f"# {line}\n" for line in lines)


def _learning_rate(answers: Answers) -> str:
    """Usual learning rate: lower for the model's own weights than for an adapter, and for
    preferences than for answers."""
    stage = registry.load(registry.find("stage", str(answers.stage)))
    answered = stage.rows in ("text", "messages") or stage.head != "causal_lm"
    if answers.adapter in WHOLE_MODEL:
        return "2e-5" if answered else "1e-6"
    return "2e-4" if answered else "2e-5"


def _plain(value: Any) -> str:
    """A value as YAML on one line."""
    written: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return written.removesuffix("\n").removesuffix("\n...")


def _write_schema(path: Path, made: dict[str, Any]) -> None:
    """Write the schema. Replaces an older schema, but no other file. Raises RecipeError."""
    if path.exists():
        try:
            ours = json.loads(path.read_text("utf-8")).get("title") == made["title"]
        except (ValueError, AttributeError):
            ours = False
        if not ours:
            raise RecipeError(
                "is no schema of recipes, and stands in the way", place=str(path), hint="move it"
            )
    path.write_text(json.dumps(made, indent=1), "utf-8")
