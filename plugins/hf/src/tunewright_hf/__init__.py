"""What the plugins on torch and transformers share: loading, templates, masks, collating, trainer
glue, checkpoints."""

import os
import sys

# TRL's trainer tells the hub what is trained, and on what; SECURITY.md promises that nobody is
# told.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
if _constants := sys.modules.get(
    "huggingface_hub.constants"
):  # imported before this: it has read its environment
    _constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
