"""Sampling defaults of a checkpoint."""

from dataclasses import fields
from typing import Any

from tunewright.inference import SamplingDefaults

__all__ = ["sampling_defaults"]


def sampling_defaults(config: Any, asked: bool) -> SamplingDefaults:
    """Settings of the checkpoint's GenerationConfig; none of them if not asked for.

    config: None where there is none, as with reward models.
    """
    if not asked or config is None:
        return SamplingDefaults()
    found = {each.name: getattr(config, each.name, None) for each in fields(SamplingDefaults)}
    if config.do_sample and found["temperature"] is None:
        found["temperature"] = 1.0  # what generate takes
    return SamplingDefaults(**found)
