"""Families and templates by the names of other programs."""

import tomllib
from importlib import resources

from tunewright import registry
from tunewright_hf.models import listed


def family_of(model: str, template: str | None = None) -> str | None:
    """The installed family of a listed checkpoint; else that of a template of LLaMA-Factory's;
    None if neither tells it."""
    installed = {entry.name for entry in registry.entries("family")}
    found = listed.find(model)
    if found is not None:
        twins = listed.read(found.package, "tiny.toml").get("twin", ())
        own = next((twin["model_type"] for twin in twins if twin["name"] == found.twin), "")
        families = {point.name: point.value for point in registry.group("model_type")}
        if name := families.get(found.model_type or own):
            return name
    guess = _names()["families"].get(template or "")
    return guess if guess in installed else None


def template_of(name: str) -> str | None:
    """Our template for one of LLaMA-Factory's; None if there is none."""
    ours = _names()["templates"].get(name, name)
    return ours if ours in {entry.name for entry in registry.entries("template")} else None


def listed_template(model: str) -> str | None:
    """The template of a listed checkpoint; None for others."""
    found = listed.find(model)
    return found.template if found is not None else None


def _names() -> dict[str, dict[str, str]]:
    text = resources.files("tunewright_import").joinpath("names.toml").read_text("utf-8")
    return tomllib.loads(text)
