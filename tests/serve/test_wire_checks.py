"""The shared wire checks, with the real `openai` client, on a scripted engine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve.serving import TOKEN, scripted
from shared import SHARED
from tunewright.inference import GenerateRequest, JsonSchema

CHECKS = SHARED / "tools/wire_checks.py"
#: checks that say themselves why they do not run here
SKIPPED = {
    "default_length": "needs a trained model that stops",
    "image_data_url": "no image input",
    "queue_full": "needs a server started with --queue 1",
}


def answer(request: GenerateRequest) -> Any:
    """Meaningful where a check asks for meaning: a guide, a seed, no end."""
    if isinstance(request.guide, JsonSchema):
        fields = request.guide.schema.get("properties", {})
        if "name" in fields:
            return ['{"name": "get_weather", ', '"arguments": {"city": "', 'Oslo"}}']
        values = {"city": "Oslo", "ok": True, "n": 3}
        return json.dumps({field: values[field] for field in fields if field in values})
    if request.temperature:
        return f"Answer number {request.seed} of many."
    return ["word "] * 1000 if request.ignore_eos else "Hello-there-I-am a scripted model."


@pytest.mark.skipif(not CHECKS.is_file(), reason="shared/tools/wire_checks.py is not here")
def test_wire_checks(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with scripted(answer, models=("base", "other")) as running:
        names = ["--token", TOKEN, "--adapter", "other", "--json", results]
        command = [sys.executable, CHECKS, running.address, *names]
        subprocess.run(command, check=False, capture_output=True, timeout=300)
    found = json.loads(results.read_text())
    assert [each for each in found if each["state"] == "FAIL"] == []
    skipped = {each["check"]: each["why"] for each in found if each["state"] == "skip"}
    assert skipped == SKIPPED
    assert len(found) == 80
