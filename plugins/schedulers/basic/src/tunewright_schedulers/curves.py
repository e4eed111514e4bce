"""Learning-rate factors by step, with the formulas of transformers 5.23 (optimization.py).

step: 0 is the first. warmup, total: optimizer steps; total includes warm-up.
"""

import math
from typing import Any

from tunewright import RecipeError


def cosine(step: int, warmup: int, total: int, cycles: float) -> float:
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * progress)))


def linear(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def constant_with_warmup(step: int, warmup: int) -> float:
    return step / max(1, warmup) if step < warmup else 1.0


def inverse_sqrt(step: int, warmup: int, timescale: int | None) -> float:
    timescale = timescale or warmup or 10_000
    if step < warmup:
        return step / max(1, warmup)
    return 1.0 / math.sqrt((step + timescale - warmup) / timescale)


def polynomial(step: int, warmup: int, total: int, rate: float, power: float) -> float:
    """Polynomial decay to `rate`, the final factor."""
    if step < warmup:
        return step / max(1, warmup)
    if step >= total:
        return rate
    left = 1 - (step - warmup) / (total - warmup)
    return float((1 - rate) * left**power + rate)


def cosine_with_min_lr(step: int, warmup: int, total: int, rate: float, cycles: float) -> float:
    """Cosine decay to `rate`, the final factor."""
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    factor = 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * progress))
    return max(0.0, factor * (1 - rate) + rate)


def warmup_stable_decay(step: int, warmup: int, total: int, options: Any) -> float:
    """Warm-up, constant, decay. options: WarmupStableDecay.Options."""
    share, least = options.num_decay_steps, options.min_lr_ratio
    decay = math.ceil(share * total) if share < 1 else int(share)
    decay = min(decay, max(0, total - warmup))
    stable = total - warmup - decay
    if step < warmup:
        progress = step / max(1, warmup)
        factor = {
            "linear": progress,
            "cosine": 0.5 * (1.0 - math.cos(math.pi * progress)),
            "1-sqrt": 1.0 - math.sqrt(1.0 - progress),
        }[options.warmup_type]
    elif step < warmup + stable:
        return 1.0
    elif step < total:
        progress = (step - warmup - stable) / max(1, decay)
        factor = {
            "linear": 1.0 - progress,
            "cosine": 0.5 * (1.0 + math.cos(math.pi * options.num_cycles * 2.0 * progress)),
            "1-sqrt": 1.0 - math.sqrt(progress),
        }[options.decay_type]
    else:
        return float(least)
    return max(0.0, factor * (1.0 - least) + least)


def end_rate(optimizer: Any, end: float, option: str) -> float:
    """Final learning rate as a factor of the peak. Raises RecipeError if it is above the peak."""
    peak = float(optimizer.param_groups[0]["lr"])
    if end > peak:
        raise RecipeError(
            f"is {end:g}, above the peak {peak:g} of training.learning_rate",
            place=f"scheduler.{option}",
            hint="lower it",
        )
    return end / peak
