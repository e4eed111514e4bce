"""A checkpoint whose tokenizer.json is changed, and what loading it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loading_setup import load

from tunewright import RunError
from tunewright_conformance.doubles import FakeRun

Json = dict[str, Any]


def template(**fields: Any) -> Json:
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [piece],
        "pair": [piece],
        "special_tokens": {},
    } | fields


def refused(run: FakeRun, checkpoint: Path, change: Callable[[Json], Any]) -> str:
    """What loading a checkpoint says whose tokenizer.json was changed."""
    path = checkpoint / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        load(run, str(checkpoint))
    assert "\n" not in str(caught.value)
    return str(caught.value)
