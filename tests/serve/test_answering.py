"""Answers on their way to a client that reads slowly, or to a server that is busy."""

import asyncio

import pytest

from serve.serving import HERMES
from tunewright.inference import GenerateRequest
from tunewright_conformance.scripted import ScriptedEngine
from tunewright_serve.answering import answer_batches
from tunewright_serve.errors import ApiError
from tunewright_serve.service import Limits, Service

MANY = 1000  # pieces; a client may leave 256 unread


def test_only_a_client_that_does_not_read_is_cancelled() -> None:
    """A reader that has had no turn, because the server was busy, gets all."""

    async def read(is_sending: bool) -> str:
        engine = ScriptedEngine(["x"] * MANY, by_hand=True)
        service = Service(engine, HERMES, {"m": engine.models[0]}, Limits())
        batches = answer_batches(service, [GenerateRequest(prompt=[1], max_new_tokens=MANY)])
        reader = asyncio.ensure_future(anext(batches))
        while not engine.stats().running:
            await asyncio.sleep(0.001)
        if is_sending:
            engine.step()
            await reader  # and takes no other one meanwhile
        for _ in range(MANY // 2):  # meanwhile the server has no turn
            engine.step()
        await asyncio.sleep(0.01)
        while engine.step():
            pass
        found = await reader
        try:
            async for batch in batches:
                found += batch
        finally:
            service.close()
            engine.close()
        return "".join(piece.text for piece in found)

    assert asyncio.run(read(is_sending=False)) == "x" * MANY
    with pytest.raises(ApiError, match="cancelled"):
        asyncio.run(read(is_sending=True))
