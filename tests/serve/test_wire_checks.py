"""The shared wire checks, with the real `openai` client, on a scripted engine."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from serve.serving import HELLO, TOKEN, scripted
from shared import SHARED
from tunewright.inference import GenerateRequest, JsonSchema

CHECKS = SHARED / "tools/wire_checks.py"
#: checks that the script has not written: the tests below stand for them
SKIPPED = {"default_length", "queue_full"}
FEATURES = ("adapters", "embeddings", "generation", "guides", "images", "logprobs")
FEATURES += ("prompt_logprobs", "scores")


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
    with scripted(answer, models=("base", "other"), features=FEATURES) as running:
        names = ["--token", TOKEN, "--adapter", "other", "--json", results]
        command = [sys.executable, CHECKS, running.address, *names]
        subprocess.run(command, check=False, capture_output=True, timeout=300)
    found = json.loads(results.read_text())
    assert [each for each in found if each["state"] == "FAIL"] == []
    assert {each["check"] for each in found if each["state"] == "skip"} == SKIPPED
    assert len(found) == 80


def test_default_length() -> None:
    """Without any limit an answer goes on to its end; the engine's own limit is the context."""
    with scripted(["word "] * 700) as running:
        made = running.client().chat.completions.create(model="m", messages=HELLO)
        assert running.engine.asked[0].max_new_tokens is None
    assert made.choices[0].finish_reason == "stop"
    assert made.choices[0].message.content == "word " * 700


def test_queue_full() -> None:
    """Past the queue's limit: 429 with Retry-After, at once."""
    with scripted("ok", by_hand=True, slots=1, max_waiting=1) as running:
        client = running.client()
        with ThreadPoolExecutor(2) as pool:
            waiting = [
                pool.submit(client.chat.completions.create, model="m", messages=HELLO)
                for _ in range(2)
            ]
            while running.engine.stats().waiting < 1:
                time.sleep(0.01)
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(model="m", messages=HELLO)
            assert refused.value.response.headers["retry-after"] == "1"
            assert refused.value.code == "queue_full"
            while running.engine.stats().running or running.engine.stats().waiting:
                running.engine.step()
            assert [each.result().choices[0].message.content for each in waiting] == ["ok"] * 2
