"""Signs of a checkpoint's template in its tokenizer: the [[detect]] of a family's checkpoints.toml,
and exports of installed templates."""

import re
from dataclasses import dataclass, field
from typing import Any

from tunewright import TunewrightError, registry
from tunewright_hf.models import listed
from tunewright_hf.templates.exported import exported_options
from tunewright_hf.templates.jinja_template import MEDIA

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class FoundTemplate:
    """A checkpoint's template. None: unknown."""

    name: str | None
    options: dict[str, Any] = field(default_factory=dict)
    told: bool = False  # detected from the tokenizer


def fits(rule: dict[str, Any], vocabulary: dict[str, int], own: str) -> bool:
    """Whether a [[detect]] rule matches a tokenizer with this vocabulary and chat template.

    A rule of tokens alone does not match if a chat template writes none of them: then the format is
    another one.
    """
    pieces, tokens = rule.get("chat_template"), rule.get("tokens", ())
    if pieces is None:
        known = not own or any(token in own for token in tokens)
    else:
        known = (
            all(piece in own for piece in ([pieces] if isinstance(pieces, str) else pieces))
            if pieces
            else not own
        )
    return known and all(token in vocabulary for token in tokens)


def exported(own: str, first: list[str], named: str | None) -> FoundTemplate | None:
    """The installed template file that is exported as this chat template; of several alike, one of
    `first`. named: look at this one alone."""
    alike = {}
    for entry in registry.entries("template"):
        if ":" in entry.value or named not in (None, entry.name):
            continue  # Python code, which is imported only if requested
        try:
            options = exported_options(registry.load(entry), own)
        except TunewrightError:
            continue  # a broken one that is not needed
        if options is not None:
            alike[entry.name] = FoundTemplate(entry.name, options)
    return next((alike[name] for name in [*first, *alike] if name in alike), None)


def options_of(rule: dict[str, Any], own: str) -> dict[str, Any]:
    """The template's options that a [[detect]] gives to a checkpoint with this chat template."""
    options: dict[str, Any] = dict(rule.get("template_options", {}))
    if name := rule.get("system_variable"):
        found = re.search(rf"\bset {name} = ('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\s*-?%}}", own)
        if found:  # a constant, whose escapes are Python's
            text = found[1][1:-1].encode("ascii", "backslashreplace").decode("unicode-escape")
            options["system"] = text
    return options


def with_media(
    found: FoundTemplate, package: str, config: dict[str, Any], keeps: bool
) -> FoundTemplate:
    """The template of a checkpoint that takes media, with the texts that stand for them: those of
    the family's listed checkpoints of the same model type.

    config: its config.json. keeps: the template is certain, because the checkpoint or the recipe
    names it; else it is that of the listed ones, if one of theirs was not found by the vocabulary.
    """
    data = listed.read(package, "checkpoints.toml")
    part = config.get(data.get("media_part", {}).get(config.get("model_type"), ""), config)
    kind, twins = part.get("model_type"), listed.read(package, "tiny.toml").get("twin", ())
    usual = {twin["name"]: twin for twin in twins if "processor" in twin}
    lines = [
        each
        for each in listed.checkpoints(package)
        if each.twin in usual and kind == (each.model_type or usual[each.twin]["model_type"])
    ]
    lines = [each for each in lines if each.template != "auto"]
    text = (part.get("text_config") or {}).get("model_type")
    lines = [each for each in lines if text == _text_type(usual[str(each.twin)])] or lines
    if not lines or kind not in data.get("media", ()) or found.name == "auto":
        return found
    alike = [each for each in lines if each.template == found.name]
    if not alike and not keeps:  # that of the twin is the usual one
        alike = [each for each in lines if each.template == usual[str(each.twin)]["template"]]
    if alike and not keeps:
        options = alike[0].template_options | found.options
        return FoundTemplate(alike[0].template, options, told=True)
    forms = [
        {name: each.template_options.get(name) for name in (*MEDIA, "boxes")}
        for each in alike or lines
    ]
    if any(form != forms[0] for form in forms):
        return found
    own = {name: text for name, text in forms[0].items() if text is not None}
    return FoundTemplate(found.name, own | found.options, found.told)


def _text_type(twin: dict[str, Any]) -> str | None:
    found: str | None = twin.get("config", {}).get("model_type")
    return found
