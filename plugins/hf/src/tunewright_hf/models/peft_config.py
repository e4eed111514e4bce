"""Read a stranger's adapter_config.json: allowed fields, checked values, patterns matched in a
process with a time limit."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RunError
from tunewright.types import AdapterRequest
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.modules import linear
from tunewright_hf.models.peft_fields import COMMON, is_name
from tunewright_hf.models.peft_import import without_bitsandbytes

with without_bitsandbytes():
    import peft

if TYPE_CHECKING:
    from tunewright_hf.models.peft import PeftAdapter

__all__ = ["largest_rank", "read"]

# Fields that are not passed on: they say what the adapter is, and change nothing.
_ABOUT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}
_SECONDS = 5.0  # for all patterns of one field together
# PEFT matches patterns with `re`, which backtracks for ever on some. -I -S: nothing but the
# standard library, which starts in 20 ms.
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
        raise RunError(f"{problem}, not {adapter.peft_type}", place=str(path))
    found = adapter.check_config(found, str(path))
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(adapter.peft_type)]
    kept = _checked(adapter, found, _defaults(kind), path, largest_rank(request.loaded.model))
    names = [name for name, _ in request.loaded.model.named_modules()]
    for field, value in kept.items():
        kept[field] = _without_patterns(field, value, names, path)
    try:
        return kind(task_type=task_type, inference_mode=not request.trainable, **kept)
    except (TypeError, ValueError) as error:  # fields that contradict each other
        raise RunError(" ".join(str(error).split())[:300], place=str(path)) from error


def largest_rank(model: Any) -> int:
    """Twice the full rank of the model's largest linear layer: what PiSSA and OLoRA can be saved
    with."""
    modules = dict(model.named_modules())
    sizes = [
        min(module.in_features, module.out_features)
        if hasattr(module, "in_features")
        else min(module.weight.shape)
        for module in map(modules.__getitem__, linear(model))
    ]
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
    """The fields to pass on. Raises RunError."""
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
            raise RunError(problem, place=f"{path}: {name}")
        kept[name] = found[name]
    return kept


def _without_patterns(field: str, value: Any, names: list[str], path: Path) -> Any:
    """The value with the names that its regular expressions match, in place of them."""
    if isinstance(value, str) and field in ("target_modules", "exclude_modules"):
        if is_name(value):  # `all-linear`, or a name
            return value
        matched = _match([value], names, f"{path}: {field}")[0]
        if not matched and field == "target_modules":
            raise RunError("matches no module of the model", place=f"{path}: {field}")
        return matched
    if isinstance(value, dict):
        strange = [key for key in value if not is_name(key.removeprefix("^"))]
        if not strange:
            return value
        # as PEFT tries them: at the end of a name, the first that matches
        patterns = [rf"(.*\.)?({key})" for key in strange]
        found = dict(zip(strange, _match(patterns, names, f"{path}: {field}"), strict=True))
        resolved: dict[str, Any] = {}
        for key, item in value.items():
            for name in found.get(key, [key]):
                resolved.setdefault(name, item)
        return resolved
    return value


def _match(patterns: list[str], names: list[str], place: str) -> list[list[str]]:
    """For each pattern the names that it matches in full. Raises RunError, also for one that takes
    too long."""
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
        raise RunError(f"is no regular expression: {_cut(said)}", place=place)
    matched: list[list[str]] = json.loads(done.stdout)
    return matched


def _shown(value: Any) -> str:
    """A value in one short line of ASCII."""
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    text = re.sub(r"[^ -~]", "?", text)
    return text if len(text) <= 60 else f"{text[:60]}…"
