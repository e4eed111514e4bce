"""The other routes of OpenAI's wire, and those about the server."""

import base64
import json
import struct
from typing import Any

import openai
import pytest

from serve.serving import Running, scripted
from tunewright.types import Message


def completion(running: Running, **fields: Any) -> Any:
    return running.client().completions.create(**{"model": "m", "prompt": "Hello"} | fields)


def test_completions_of_several_prompts() -> None:
    with scripted(lambda request: bytes(request.prompt).decode() + "!") as running:
        made = completion(running, prompt=["a", "b"], n=2)
        assert [(c.index, c.text) for c in made.choices] == [
            (0, "a!"),
            (1, "a!"),
            (2, "b!"),
            (3, "b!"),
        ]
        assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (2, 4)
        assert completion(running, prompt=[[104], [105]]).choices[1].text == "i!"
        assert completion(running, prompt=[104, 105]).usage.prompt_tokens == 2
        streamed: dict[int, str] = {}
        for chunk in completion(running, prompt=["a", "b"], stream=True):
            for each in chunk.choices:
                streamed[each.index] = streamed.get(each.index, "") + each.text
        assert streamed == {0: "a!", 1: "b!"}


def test_completions_are_of_16_tokens_unless_told() -> None:
    with scripted(["x"] * 100) as running:
        assert completion(running).choices[0].text == "x" * 16
        assert completion(running, max_tokens=20).choices[0].finish_reason == "length"


def test_echo_and_logprobs() -> None:
    with scripted("one two") as running:
        made = completion(running, prompt="Hi", echo=True, logprobs=2).choices[0]
        assert made.text == "Hione two"
        assert made.logprobs.tokens == ["H", "i", "one", " two"]
        assert made.logprobs.token_logprobs == [None, -1.0, -0.5, -0.5]
        assert made.logprobs.text_offset == [0, 1, 2, 5]
        assert made.logprobs.top_logprobs[2] == {"one": -0.5, "other": -2.0}
        empty = completion(running, prompt="Hi", echo=True, logprobs=0, max_tokens=0).choices[0]
        assert (empty.text, empty.logprobs.tokens) == ("Hi", ["H", "i"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"stream_options": {}}, "stream_options"),
        ({"logit_bias": {"a": 1.0}}, "logit_bias"),
        ({"stop": [""]}, "stop"),
    ],
)
def test_completions_that_are_refused(fields: Any, param: str) -> None:
    with scripted("ok") as running:
        reply = running.ask("/v1/completions", {"model": "m", "prompt": "a"} | fields)
    assert (reply.status, reply.error["param"]) == (400, param)


def test_embeddings() -> None:
    with scripted() as running:
        made = running.client().embeddings.create(model="m", input=["a", "b"])  # as base64
        assert [len(each.embedding) for each in made.data] == [2, 2]
        body = {"model": "m", "input": "a"}
        data = running.ask("/v1/embeddings", body | {"encoding_format": "base64"}).json["data"]
        floats = running.ask("/v1/embeddings", body).json["data"][0]["embedding"]
    packed = base64.b64decode(data[0]["embedding"])
    assert list(struct.unpack("<2f", packed)) == pytest.approx(floats)


def test_scores_and_ranks() -> None:
    with scripted() as running:
        made = running.ask("/v1/score", {"text_1": "q", "text_2": ["a", "bbb"]}).json["data"]
        assert made[1]["score"] > made[0]["score"]
        ranked = running.ask("/v1/rerank", {"query": "q", "documents": ["a", "bbb"], "top_n": 1})
        results = ranked.json["results"]
        wrong = running.ask("/v1/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]})
    assert [(r["index"], r["document"]["text"]) for r in results] == [(1, "bbb")]
    assert (wrong.status, wrong.error["param"]) == (400, "text_2")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/score", {"text_1": "a", "text_2": "b"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ],
)
def test_an_engine_without_numbers(path: str, body: Any) -> None:
    with scripted(features=["generation"]) as running:
        reply = running.ask(path, body)
    assert reply.status == 400 and "does not support" in reply.error["message"]


def test_tokenize() -> None:
    with scripted() as running:
        messages = [{"role": "user", "content": "Hi"}]
        made = running.ask("/tokenize", {"messages": messages}).json
        assert (made["count"], made["max_model_len"]) == (len("user: Hi"), 100_000)
        tokens = running.ask("/tokenize", {"prompt": "Hé"}).json["tokens"]
        assert running.ask("/detokenize", {"tokens": tokens}).json == {"prompt": "Hé"}
        assert running.ask("/tokenize", {}).error["param"] == "prompt"
    assert Message("user", "Hi").content == "Hi"


def test_models() -> None:
    names = {"org/base": "base", "a": "a"}
    with scripted("ok", models=("base", "a"), names=names) as running:
        client = running.client()
        assert [model.id for model in client.models.list()] == ["org/base", "a"]
        found = client.models.retrieve("org/base")
        assert found.id == "org/base"
        assert found.max_model_len == running.engine.max_length
        assert "generation" in found.features
        for name in ("org", "org/base/x"):
            with pytest.raises(openai.NotFoundError, match="there is no model"):
                client.models.retrieve(name)
        made = client.chat.completions.create(
            model="org/base", messages=[{"role": "user", "content": "a"}]
        )
        assert (made.model, running.engine.asked[0].model) == ("org/base", "base")
        assert running.chat(model=None).json["model"] == "org/base"
        assert running.chat(model="x").error["code"] == "model_not_found"


def test_health_and_readiness() -> None:
    with scripted() as running:
        for path in ("/health", "/ready"):
            assert running.ask(path, headers={"Authorization": None}).status == 200
        running.service.draining = True
        assert running.ask("/ready").status == 503 and running.ask("/health").status == 200


def test_metrics() -> None:
    with scripted("ok") as running:
        running.chat()
        running.chat(stream=True)
        running.chat(temperature=-1)
        text = running.ask("/metrics", headers={"Authorization": None})
        assert text.status == 401
        lines = running.ask("/metrics").data.decode().splitlines()
    route = 'route="/v1/chat/completions"'
    assert f'tunewright_requests_total{{{route},status="200"}} 2' in lines
    assert f'tunewright_requests_total{{{route},status="400"}} 1' in lines
    assert f"tunewright_request_seconds_count{{{route}}} 3" in lines
    assert f'tunewright_first_byte_seconds_bucket{{{route},le="+Inf"}} 1' in lines
    assert "tunewright_engine_completion_tokens_total 2" in lines
    assert all(line.startswith(("#", "tunewright_")) for line in lines)


def test_the_openapi_document_names_every_route() -> None:
    with scripted() as running:
        document = running.ask("/openapi.json").json
        text = json.dumps(document)
        for reference in text.split('"#/components/schemas/')[1:]:
            assert reference[: reference.index('"')] in document["components"]["schemas"]
        for path, operations in document["paths"].items():
            for method in operations:
                reply = running.ask(path, {} if method == "post" else None)
                assert reply.status != 405 and "no route" not in str(reply.data), path
