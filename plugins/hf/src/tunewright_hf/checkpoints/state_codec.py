"""Nested states as JSON and safetensors. Unlike pickle, reading them runs no code.

`NAME.json` is the state with tensors replaced by references into `NAME.safetensors`.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from tunewright import RunError

# floats that JSON cannot represent
_TENSOR, _TUPLE, _PAIRS, _FLOAT = (
    "$tensor",
    "$tuple",
    "$pairs",
    "$float",
)


def save_state(state: Any, folder: Path, name: str) -> None:
    """Write dicts, lists, tuples, tensors, strings, numbers and None. Raises RunError for anything
    else."""
    tensors: dict[str, Tensor] = {}
    skeleton = _encode(state, tensors, name)
    (folder / f"{name}.json").write_text(json.dumps(skeleton, allow_nan=False), encoding="utf-8")
    save_file(tensors, folder / f"{name}.safetensors")


def load_state(folder: Path, name: str) -> Any:
    """Load a state that `save_state` wrote, its tensors on the CPU."""
    tensors = load_file(folder / f"{name}.safetensors")
    return _decode(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), tensors)


def check_state(state: Any, name: str) -> None:
    """Raise RunError if `save_state` could not write the state. Copies no tensor."""
    _encode(state, None, name)


def _encode(value: Any, tensors: dict[str, Tensor] | None, place: str) -> Any:
    """JSON form of a value; its tensors are added to `tensors`, or only checked if that is None."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if np.isfinite(value) else {_FLOAT: repr(value)}
    if tensors is None and kind is DTensor:  # they are gathered before they are written
        return None
    if kind in (Tensor, torch.nn.Parameter) and value.layout == torch.strided and not value.is_meta:
        if tensors is None:
            return None
        reference = str(len(tensors))
        # clone: safetensors refuses tensors that share memory
        tensors[reference] = value.detach().to(
            "cpu", copy=True, memory_format=torch.contiguous_format
        )
        return {_TENSOR: reference}
    if kind in (list, tuple):
        items = [_encode(item, tensors, f"{place}[{number}]") for number, item in enumerate(value)]
        return items if kind is list else {_TUPLE: items}
    if isinstance(value, dict):
        pairs = [(key, _encode(item, tensors, f"{place}[{key!r}]")) for key, item in value.items()]
        if all(type(key) is str and not key.startswith("$") for key in value):
            return dict(pairs)
        return {_PAIRS: [[_encode(key, tensors, f"a key of {place}"), item] for key, item in pairs]}
    problem = f"{place} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold"
    raise RunError(
        problem, hint="checkpoints hold tensors, numbers and text only: choose another optimizer"
    )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_decode(item, tensors) for item in value[_TUPLE])
    if _FLOAT in value:
        return float(value[_FLOAT])
    if _PAIRS in value:
        return {_decode(key, tensors): _decode(item, tensors) for key, item in value[_PAIRS]}
    return {key: _decode(item, tensors) for key, item in value.items()}


def seed_everything(seed: int) -> None:
    """Seed all random number generators of this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """States of all random number generators of this process."""
    numpy_state: Any = np.random.get_state()
    name, keys, *rest = numpy_state
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the states from `rng_state`. With another number of GPUs, the GPUs keep their own
    states."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
