"""The page of model families for `make_docs.py`."""

import json
import tomllib
from importlib import resources
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from tunewright import registry
from tunewright_models.listing import Checkpoint, checkpoints, options_text

ROOT = Path(__file__).resolve().parents[1]
FIELD_CASES = 6  # recorded conversations per LLaMA-Factory template
# equal for all checkpoints of a row
ROW = attrgetter("line", "template", "template_options", "remote_code", "native", "license")


def models_page(note: str, members: dict[str, list[registry.Entry]]) -> str:
    """The text of docs/reference/models.md. members: this repository's plugins by kind."""
    intro = (
        "Families, their listed checkpoints, and the reference that each template is tested to "
        "equal: the model's own template\n"
        "(from TRL) or LLaMA-Factory's, on recorded conversations. Without a reference, the text "
        "was only reviewed.\n"
        "Unlisted checkpoints load too. `tunewright models` lists the checkpoints of the installed "
        "families.\n"
        "Licences are named as on the hub; `other` is the maker's own, see the checkpoint's page.\n"
        "`--smoke` trains a checkpoint's tiny twin. If the modelling code is on the hub, the twin "
        "may have another architecture;\n"
        "`native as` names the class of transformers that such a checkpoint "
        "[is loaded as](../explanation/native.md), without its code.\n"
        "`model unproven`: the template is tested, the model's own code is not among our tests. "
        "It runs [where you trust\nit](../explanation/remote-code.md), and is tried on a few "
        "tokens before it is trained;\n[why it has no native form](../explanation/native.md"
        "#without-a-native-form).\n"
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
        f"`{twin['name']}` ({class_of(twin)})" for twin in tomllib.loads(tiny)["twin"]
    )
    rows = [
        "| models | checkpoints | licence of the weights | template | equal to | tiny twin |",
        "|---|---|---|---|---|---|",
    ]
    for (line, template, options, remote, native, licence), found in groupby(listed, ROW):
        group = list(found)
        name = f"{line} (code on the hub: model unproven)" if remote else line
        name += f" (native as {native})" if native else ""
        twin = ", ".join(dict.fromkeys(f"`{e.twin}`" for e in group))
        which = ", ".join(
            f"`{e.id}` ({e.size}{', base' if e.kind == 'base' else ''})" for e in group
        )
        with_ = f", {options_text(options)}".replace("|", "\\|") if options else ""
        what = f"`{template}`{with_} | {tested(template)} | {twin}"
        rows.append(f"| {name} | {which} | {licence} | {what} |")
    about = (
        f"From `{entry.distribution}`: {entry.summary}\nModel types: "
        f"{kinds or 'those of other families'}. Tiny twins: {twins}."
    )
    return "\n".join([f"## {entry.name}\n", f"{about}\n", *rows]) + "\n"


def class_of(twin: dict[str, Any]) -> str:
    """The class of a tiny twin; for an architecture whose code is on the hub, that which it has
    there."""
    kind = twin["model_type"]
    if twin.get("processor"):
        return str(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[kind])
    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) or twin["config"]["architectures"][0]


def tested(template: str) -> str:
    """References that a template's text is tested to equal, with the number of conversations."""
    if template == "auto":
        return "the checkpoint's own"
    golden = ROOT / f"tests/conformance/src/tunewright_conformance/goldens/template/{template}.json"
    made = json.loads(golden.read_text("utf-8")) if golden.is_file() else {}
    parts = []
    if official := made.get("official"):
        count = len(made["cases"])
        parts.append(f"the model's own, {count - len(official['differs'])} of {count}")
    if "nearly" in made:
        parts.append("the model's own, except as its notes say")
    apart = ROOT / f"tests/templates/differs/{template}.toml"
    declared = tomllib.loads(apart.read_text("utf-8")) if apart.is_file() else {}
    equal = FIELD_CASES - len(declared.keys() - {"official", "default_system"})
    if equal and template in (ROOT / "tests/templates/field.txt").read_text("utf-8").split():
        parts.append(f"LLaMA-Factory's, {equal} of {FIELD_CASES}")
    return "; ".join(parts) or "–"
