"""The page of model families for `make_docs.py`."""

import json
import tomllib
from importlib import resources
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

from tunewright import registry
from tunewright_models.listing import Checkpoint, checkpoints

ROOT = Path(__file__).resolve().parents[1]
FIELD_CASES = 6  # conversations of each of LLaMA-Factory's templates that were recorded
ROW = attrgetter("line", "template", "remote_code", "license")  # same for all checkpoints of a row


def models_page(note: str, members: dict[str, list[registry.Entry]]) -> str:
    """The text of docs/reference/models.md. members: this repository's plugins by kind."""
    intro = (
        "Families, the checkpoints that they list, and what each template is proven "
        "equal to: the model's own, as TRL\n"
        "has it, and LLaMA-Factory's, on recorded conversations. Where neither is "
        "named, the text was only reviewed.\n"
        "Checkpoints that are not listed load too. `tunewright models` lists those "
        "of the installed families.\n"
        "Licences have the hub's names; `other` is one of the maker's own, which "
        "stands on the checkpoint's page.\n`--smoke` trains a checkpoint's tiny twin. "
        "Where the code is on the hub, one of another architecture may stand in.\n"
    )
    parts, listed = [f"# Models\n\n{note}{intro}"], checkpoints()
    for entry in members["family"]:
        parts.append(family(entry, [each for each in listed if each.family == entry.name]))
    used = {each.template for each in listed}
    rows = [
        f"| `{entry.name}` | `{entry.distribution}` | {tested(entry.name)} |"
        for entry in members["template"]
        if entry.name not in used
    ]
    head = ["## Other templates\n", "| template | from | equal to |", "|---|---|---|"]
    return "\n".join([*parts, *head, *rows]) + "\n"


def family(entry: registry.Entry, listed: list[Checkpoint]) -> str:
    """A family's section: model types, tiny twins, and a row for each group of checkpoints."""
    kinds = ", ".join(
        f"`{point.name}`" for point in registry.group("model_type") if point.value == entry.name
    )
    tiny = resources.files(entry.value.partition(":")[0]).joinpath("tiny.toml").read_text("utf-8")
    twins = ", ".join(
        f"`{twin['name']}` ({CLASSES[twin['model_type']]})" for twin in tomllib.loads(tiny)["twin"]
    )
    rows = [
        "| models | checkpoints | licence of the weights | template | equal to | tiny twin |",
        "|---|---|---|---|---|---|",
    ]
    for (line, template, remote, licence), found in groupby(listed, ROW):
        group = list(found)
        name = f"{line} (code on the hub)" if remote else line
        twin = ", ".join(dict.fromkeys(f"`{e.twin}`" for e in group))
        which = ", ".join(
            f"`{e.id}` ({e.size}{', base' if e.kind == 'base' else ''})" for e in group
        )
        what = f"`{template}` | {tested(template)} | {twin}"
        rows.append(f"| {name} | {which} | {licence} | {what} |")
    about = (
        f"From `{entry.distribution}`: {entry.summary}\nModel types: "
        f"{kinds or 'those of others'}. Tiny twins: {twins}."
    )
    return "\n".join([f"## {entry.name}\n", f"{about}\n", *rows]) + "\n"


def tested(template: str) -> str:
    """What a template's text is tested to be equal to, and on how many conversations."""
    if template == "auto":
        return "it is the checkpoint's own"
    golden = ROOT / f"tests/conformance/src/tunewright_conformance/goldens/template/{template}.json"
    made = json.loads(golden.read_text("utf-8")) if golden.is_file() else {}
    parts = []
    if official := made.get("official"):
        count = len(made["cases"])
        parts.append(f"the model's own, {count - len(official['differs'])} of {count}")
    if "nearly" in made:
        parts.append("the model's own, but for what its notes name")
    apart = ROOT / f"tests/templates/differs/{template}.toml"
    declared = tomllib.loads(apart.read_text("utf-8")) if apart.is_file() else {}
    equal = FIELD_CASES - len(declared.keys() - {"official", "default_system"})
    if equal and template in (ROOT / "tests/templates/field.txt").read_text("utf-8").split():
        parts.append(f"LLaMA-Factory's, {equal} of {FIELD_CASES}")
    return "; ".join(parts) or "–"
