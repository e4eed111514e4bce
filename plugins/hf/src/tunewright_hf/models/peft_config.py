"""Read an untrusted adapter_config.json: allowed fields, checked values, patterns matched in a
process with a time limit."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.pytorch_utils import Conv1D

from tunewright import RunError
from tunewright.types import AdapterRequest
from tunewright_hf.models.errors import PUBLISHED
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.modules import linear
from tunewright_hf.models.peft_fields import COMMON, is_name
from tunewright_hf.models.peft_import import without_bitsandbytes
from tunewright_hf.models.peft_targets import ending_in

with without_bitsandbytes():
    import peft

if TYPE_CHECKING:
    from tunewright_hf.models.peft import PeftAdapter

__all__ = ["largest_rank", "read"]

# fields that are not passed on: they describe the adapter, and change nothing
_ABOUT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}
_SECONDS = 5.0  # for all patterns of a field
# PEFT matches patterns with `re`, which may backtrack forever. -I -S: only the standard library,
# which starts in 20 ms.
_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
compiled = [re.compile(pattern) for pattern in patterns]
json.dump([[name for name in names if each.fullmatch(name)] for each in compiled], sys.stdout)
"""


def read(adapter: "PeftAdapter", request: AdapterRequest, task_type: str) -> Any:
    """Return the peft.PeftConfig that `request.adapter_path` holds.

    Every value is checked before PEFT sees it: `peft_fields.COMMON` and the adapter's config_fields
    say which fields there may be, and what they hold. Raises RunError that names file and field.
    """
    assert request.adapter_path is not None
    path = request.adapter_path / "adapter_config.json"
    found = read_json(path)
    if found.get("peft_type") != adapter.peft_type:
        problem = f"is an adapter of type {_shown(found.get('peft_type'))}"
        hint = "the recipe's `adapter` has to be the one that it was trained with"
        raise RunError(f"{problem}, not {adapter.peft_type}", place=str(path), hint=hint)
    found = adapter.check_config(found, str(path))
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(adapter.peft_type)]
    kept = _checked(adapter, found, _defaults(kind), path, largest_rank(request.loaded.model))
    _resolve_patterns(kept, request.loaded.model, path)
    try:
        return kind(task_type=task_type, inference_mode=not request.trainable, **kept)
    except (TypeError, ValueError) as error:  # contradictory fields
        said = " ".join(str(error).split())[:300]
        raise RunError(said, place=str(path), hint=PUBLISHED) from error


def largest_rank(model: Any) -> int:
    """Twice the full rank of the model's largest linear layer: what PiSSA and OLoRA can be saved
    with."""
    sizes = [
        min(
            module.in_features, module.out_features
        )  # quantized layers have no weight of this shape
        for module in model.modules()
        if hasattr(module, "in_features") and hasattr(module, "out_features")
    ]
    sizes += [min(each.weight.shape) for each in model.modules() if isinstance(each, Conv1D)]
    return 2 * max(sizes, default=1)


def _defaults(kind: Any) -> dict[str, Any]:
    """PEFT's default of each field, as JSON has it."""
    found = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            made = field.default_factory()
            found[field.name] = getattr(made, "__dict__", made)  # a nested config, or a plain value
    return found


def _checked(
    adapter: "PeftAdapter",
    found: dict[str, Any],
    defaults: dict[str, Any],
    path: Path,
    largest: int,
) -> dict[str, Any]:
    """Fields to pass on. Raises RunError."""
    checks = {**COMMON, **adapter.config_fields}
    strange = sorted(
        name
        for name, value in found.items()
        if name not in checks.keys() | _ABOUT and value and value != defaults.get(name)
    )
    if strange:
        some = ", ".join(map(_cut, strange[:3])) + (", …" if len(strange) > 3 else "")
        raise RunError(f"uses {some}, not supported", place=str(path))
    kept = {}
    for name, check in checks.items():
        if name not in found or (found[name] is None and defaults.get(name) is None):
            continue
        if not check.holds(found[name], largest):
            problem = f"is {_shown(found[name])}, expected {check.expected}"
            if check.expected.startswith("a whole number from 1 to twice"):
                problem += f", {largest}"
            raise RunError(problem, place=f"{path}: {name}", hint=PUBLISHED)
        kept[name] = found[name]
    return kept


def _resolve_patterns(kept: dict[str, Any], model: Any, path: Path) -> None:
    """Replace regular expressions by the names of the modules that they match."""
    names = [name for name, _ in model.named_modules()]
    for field in ("target_modules", "exclude_modules"):
        value = kept.get(field)
        if isinstance(value, str) and not is_name(value):  # a name, or all-linear
            (kept[field],) = _match([value], names, f"{path}: {field}")
            if field == "target_modules" and not kept[field]:
                hint = "the adapter is of another model"
                raise RunError(
                    "matches no module of the model", place=f"{path}: {field}", hint=hint
                )
    targets = kept.get("target_modules")
    targeted = ending_in(model, targets) if isinstance(targets, list) else set(linear(model))
    for field, value in kept.items():
        if isinstance(value, dict):
            kept[field] = _by_name(value, sorted(targeted), f"{path}: {field}")


def _by_name(values: dict[str, Any], names: list[str], place: str) -> dict[str, Any]:
    """Values by module name or pattern, with names for the patterns.

    As in PEFT, a key counts at the end of a name, and the first key that matches wins.
    """
    strange = [key for key in values if not is_name(key.removeprefix("^"))]
    if not strange:
        return values
    matched = _match([rf"(.*\.)?({key})" for key in strange], names, place)
    found = dict(zip(strange, matched, strict=True))
    resolved: dict[str, Any] = {}
    for key, value in values.items():
        for name in found.get(key, [key]):
            resolved.setdefault(name, value)
    return resolved


def _match(patterns: list[str], names: list[str], place: str) -> list[list[str]]:
    """For each pattern, the names that it matches in full. Raises RunError, also on a timeout."""
    command = [sys.executable, "-I", "-S", "-c", _MATCH]
    try:
        done = subprocess.run(
            command,
            input=json.dumps([patterns, names]),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"takes more than {_SECONDS:g} s to match as a regular expression",
            place=place,
            hint="write module names, such as q_proj, into the file",
        ) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["the process ended"])[-1]
        raise RunError(f"is no regular expression: {_cut(said)}", place=place, hint=PUBLISHED)
    matched: list[list[str]] = json.loads(done.stdout)
    return matched


def _shown(value: Any) -> str:
    """A value as a short line of ASCII."""
    return _cut(ascii(value))


def _cut(text: str) -> str:
    text = re.sub(r"[^ -~]", "?", text)
    return text if len(text) <= 60 else f"{text[:60]}…"
