"""Arguments of `tunewright merge`. Imports no torch."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from tunewright import RecipeError
from tunewright.errors import did_you_mean
from tunewright_merge.soup import HeldOut, candidates, checkpoints

#: method → whether it merges changes of a base model
METHODS = {
    "linear": False,
    "slerp": False,
    "task_arithmetic": True,
    "ties": True,
    "dare_linear": True,
    "dare_ties": True,
}
_SPARSE = ("ties", "dare_linear", "dare_ties")
_DTYPES = ("auto", "float32", "bfloat16", "float16")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """A merge, as the user asks for it."""

    models: list[tuple[str, float]]  # what `open_target` takes, and its weight
    method: str
    base: str | None
    output: Path
    density: float
    scale: float
    dtype: str
    shard_size: int  # bytes
    seed: int
    greedy: HeldOut | None = None  # a soup of those models that do not raise the loss on it


def parse(
    models: list[str],
    method: str,
    base: str | None,
    soup: str | None,
    output: Path,
    *,
    density: float | None,
    scale: float | None,
    dtype: str,
    shard_size: str,
    seed: int,
) -> MergeRequest:
    """Check the arguments before anything is read. Raises RecipeError."""
    if method not in METHODS:
        hint = did_you_mean(method, METHODS) or f"there is: {', '.join(METHODS)}"
        raise _wrong("--method", f"no method is called {method!r:.60}", hint)
    greedy: HeldOut | None = None
    if soup is not None:
        if len(models) != 1 or method != "linear":
            raise _wrong("--soup", "averages checkpoints of one run, with --method linear")
        run = Path(models[0]).expanduser()
        found, greedy = candidates(run) if soup == "greedy" else (checkpoints(run, soup), None)
        parts = [(str(folder), 1.0) for folder in found]
    else:
        parts = [_weighted(each) for each in models]
    _check_models(parts, method, base)
    for option, value, methods in (
        ("--density", density, _SPARSE),
        ("--lambda", scale, [name for name, has_base in METHODS.items() if has_base]),
    ):
        if value is not None and method not in methods:
            raise _wrong(option, f"goes with --method {', '.join(methods)}, not with {method}")
    if density is not None and not 0 < density <= 1:
        raise _wrong("--density", f"found {density:g}, expected more than 0, up to 1")
    if scale is not None and not math.isfinite(scale):
        raise _wrong("--lambda", f"found {scale}, expected a number")
    if dtype not in _DTYPES:
        raise _wrong("--dtype", f"found {dtype!r:.40}, expected {', '.join(_DTYPES)}")
    size = re.fullmatch(r"([1-9]\d{0,8})(KB|MB|GB)", shard_size)
    if not size:
        raise _wrong("--shard-size", f"found {shard_size!r:.40}, expected a size such as 500MB")
    if output.exists():
        raise RecipeError("exists already", place=str(output), hint="name a new folder: --output")
    return MergeRequest(
        parts,
        method,
        base,
        output,
        0.5 if density is None else density,
        1.0 if scale is None else scale,
        dtype,
        int(size[1]) * _UNITS[size[2]],
        seed,
        greedy,
    )


def _check_models(parts: list[tuple[str, float]], method: str, base: str | None) -> None:
    has_base = METHODS[method]
    if has_base and base is None:
        raise _wrong("--base", f"{method} merges changes of a base model, and none is named")
    if not has_base and base is not None:
        raise _wrong("--base", f"{method} takes no base model")
    least = 1 if has_base else 2
    if len(parts) < least or (method == "slerp" and len(parts) != 2):
        expected = "two models" if method == "slerp" else "two models or more"
        raise _wrong("MODEL", f"{method} merges {expected}, found {len(parts)}")
    weights = [weight for _, weight in parts]
    if method == "slerp" and (min(weights) < 0 or not sum(weights)):
        raise _wrong("MODEL", "slerp takes weights of 0 or more, not both 0")
    if method == "linear" and abs(sum(weights)) < 1e-8:
        raise _wrong("MODEL", "the weights add up to 0, by which linear divides")


def _weighted(written: str) -> tuple[str, float]:
    """The model and the weight of MODEL=WEIGHT; what is no number after `=` is part of a path."""
    name, _, number = written.rpartition("=")
    try:
        weight = float(number) if name else 1.0
    except ValueError:
        return written, 1.0
    if not math.isfinite(weight):
        raise _wrong("MODEL", f"found {written!r:.200}, expected MODEL or MODEL=0.5")
    return name or written, weight


def _wrong(option: str, problem: str, hint: str = "") -> RecipeError:
    return RecipeError(problem, place=f"command line: {option}", hint=hint)
