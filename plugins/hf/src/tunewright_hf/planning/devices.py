"""Devices: memory and peak speed, from devices.toml and files of the user's own."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import RecipeError
from tunewright.errors import did_you_mean

__all__ = ["Device", "devices", "find_device", "this_device"]

_FIELDS = {"memory_gib", "tflops", "price_per_hour"}


@dataclass(frozen=True)
class Device:
    """One GPU."""

    name: str
    memory: int  # bytes
    flops: float | None = None  # per second, at most; None: not known
    price: float | None = None  # per hour, in the user's currency


def devices(more: Path | None = None) -> dict[str, Device]:
    """All known devices by name. more: a TOML file of the same form, whose entries are added.

    Raises RecipeError if it is not of that form.
    """
    own = Path(__file__).with_name("devices.toml")
    found = _read(own)
    return found if more is None else found | _read(more)


def _read(path: Path) -> dict[str, Device]:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot be read: {error}", place=str(path)) from error
    return {name: _device(name, entry, str(path)) for name, entry in entries.items()}


def _device(name: str, entry: Any, place: str) -> Device:
    if not isinstance(entry, dict) or "memory_gib" not in entry or entry.keys() - _FIELDS:
        problem = f"[{name}] is no device"
        raise RecipeError(problem, place=place, hint=f"its fields are {', '.join(sorted(_FIELDS))}")
    for key, value in entry.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise RecipeError(
                f"[{name}] {key} is {value!r}, expected a positive number", place=place
            )
    speed = entry.get("tflops")
    return Device(
        name,
        int(entry["memory_gib"] * 2**30),
        None if speed is None else speed * 1e12,
        entry.get("price_per_hour"),
    )


def find_device(name: str, more: Path | None = None) -> Device:
    """The device of this name. Raises RecipeError if there is none."""
    known = devices(more)
    if name not in known:
        problem, hint = f"no device {name!r} is known", did_you_mean(name, known)
        raise RecipeError(problem, place="command line: --device", hint=hint)
    return known[name]


def this_device() -> Device | None:
    """This machine's GPU; None without one. Its speed is that of the listed device whose name
    begins as its own."""
    import torch

    if not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(0)
    plain = facts.name.lower().replace(" ", "")
    listed = [each for each in devices().values() if each.name.partition("-")[0] in plain]
    near = min(listed, key=lambda each: abs(each.memory - facts.total_memory), default=None)
    return Device(facts.name, facts.total_memory, near.flops if near else None)
