"""A new recipe: what is asked, what the data shows, and the file."""

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
from tunewright.plugin import described
from tunewright.terminal import printable
from tunewright_new.look import Look, look

SCHEMA = "recipe.schema.json"  # beside the recipe: editors find it from there, on any machine
WHOLE_MODEL = (
    "full",
    "freeze",
)  # adapters that move the model's own weights, which bear smaller steps
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)  # tokens

Prompt = Callable[..., Any]  # as typer.prompt


@dataclass
class Answers:
    """None: not given."""

    model: str | None = None
    family: str | None = None
    template: str | None = None
    data: str | None = None
    stage: str | None = None
    adapter: str | None = None
    loggers: list[str] | None = None  # besides the default ones
    output: str | None = None
    options: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # kind → those without a default

    def section(self, kind: str) -> Any:
        """The plugin of a kind as a recipe writes it: its name, or a mapping with what it cannot do
        without."""
        name, options = getattr(self, kind), self.options.get(kind)
        return {"name": name, **options} if options else name


# ---- questions -----------------------------------------------------------------------------------


def ask(given: Answers, file: Path, prompt: Prompt | None) -> Answers:
    """What is not given, asked with `prompt`; without one the default. Raises RecipeError where
    there is none, and where the recipe is there already.
    """
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

    model = question("model", "Model: a hub id, a folder, or tiny", None)
    data = question("data", "Data: a file, a folder, or a pattern such as data/*.jsonl", None)
    stage = question("stage", "Stage", "sft", _ready("stage"))
    options = {"stage": _options("stage", stage, prompt)}
    adapter = question("adapter", "Which parameters are trained", "lora", _ready("adapter"))
    options["adapter"] = _options("adapter", adapter, prompt)
    default = _family(model) if given.family is None else None
    family = default or question("family", "Family of the model", None, _installed("family"))
    others = [name for name in _installed("logger") if name not in _default_loggers()]
    loggers = [_one_of(name, others) for name in given.loggers or []]
    if given.loggers is None and prompt is not None and others:
        words = f"Also log to ({', '.join(others)}; or none)"
        loggers = prompt(words, default="none", value_proc=lambda said: _several(said, others))
    named = file.stem if file.stem != "recipe" else re.sub(r"[^\w.-]+", "", Path(data).stem)
    output = question("output", "Run folder", f"runs/{named or 'run'}")
    return Answers(model, family, given.template, data, stage, adapter, loggers, output, options)


def _options(kind: str, name: str, prompt: Prompt | None) -> dict[str, Any]:
    """The options of a plugin that have no default: what is answered, in YAML, or the example that
    the plugin gives."""
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
    """An answer; a wrong one is asked for again."""
    if known is not None and said not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known)}")
    return said


def _several(said: str, known: list[str]) -> list[str]:
    """Answers with commas between them, or none."""
    return [] if said == "none" else [_retry(name.strip(), known) for name in said.split(",")]


def _installed(kind: str) -> list[str]:
    return [entry.name for entry in registry.entries(kind)]


def _ready(kind: str) -> list[str]:
    """The installed plugins of a kind that can be begun with: every option has a default, or an
    example."""
    ready = []
    for name in _installed(kind):
        with contextlib.suppress(TunewrightError):  # a broken one is no choice
            ready += [] if None in _required(kind, name).values() else [name]
    return ready


def _required(kind: str, name: str) -> dict[str, Any]:
    """Options of a plugin that have no default, with the example that it gives; None where it gives
    none."""
    fields = registry.load(registry.find(kind, name)).Options.model_fields
    return {
        key: (field.examples or [None])[0] for key, field in fields.items() if field.is_required()
    }


def _default_loggers() -> list[str]:
    names: list[str] = registry.shipped_table()["defaults"]["loggers"]
    return names


def _family(model: str) -> str | None:
    """The family that the model's config.json tells; None where it does not, or cannot be read."""
    from tunewright.context import detect_family
    from tunewright.recipe import Recipe

    try:
        return detect_family(
            Recipe.model_validate({"model": model, "stages": ["-"], "output": "-"})
        )
    except TunewrightError:
        return None


# ---- the file ------------------------------------------------------------------------------------


def write_recipe(file: Path, answers: Answers) -> None:
    """Look at the data, write the recipe and its schema, check it, and say what comes next. Raises
    TunewrightError."""
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
    """A path as the recipe writes it, from its own folder."""
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
        "lengths": f"The longest has {longest:,}."
        if longest
        else "How long yours are `tunewright data preview` shows.",
        "max_length": str(length),
        "all_loggers": ", ".join(_installed("logger")),
        "loggers": _plain([*_default_loggers(), *(answers.loggers or [])]),
        "output": _plain(answers.output),
    }
    return Template(source).substitute(words)


def _about(kind: str, answers: Answers) -> str:
    """Comments on the options that a plugin cannot do without."""
    if not (given := answers.options.get(kind)):
        return ""
    fields = described(registry.load(registry.find(kind, getattr(answers, kind))).Options)
    about = [f"{key}: {fields[key].rstrip('.')}." for key in given]
    about += ["Here stands an example."] if given == _required(kind, getattr(answers, kind)) else []
    lines = [
        line
        for text in about
        for line in textwrap.wrap(" ".join(text.split()), 118, break_on_hyphens=False)
    ]
    return "".join(f"# {line}\n" for line in lines)


def _learning_rate(answers: Answers) -> str:
    """A usual one: the model's own weights bear smaller steps than an adapter's, preferences
    smaller than answers."""
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
    """Write the schema; an older one is replaced, another file of that name is not. Raises
    RecipeError."""
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
