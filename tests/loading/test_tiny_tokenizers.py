"""Tokenizers of the tiny twins, and the template that is chosen for a checkpoint."""

import functools
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading_setup import FAMILIES, load

from tunewright_conformance.doubles import FakeRun


def tokenizer(twin: str) -> Any:
    return load(FakeRun(), twin=twin, weights="none").tokenizer


shared_tokenizer = functools.cache(tokenizer)


@pytest.mark.parametrize("twin", ["qwen3", "llama3", "llama2"])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_any_text_comes_back(twin: str, text: str) -> None:
    made = shared_tokenizer(twin)
    wanted = unicodedata.normalize("NFC", text) if twin == "qwen3" else text
    assert made.decode(made.encode(text, add_special_tokens=False)) == wanted


@pytest.mark.parametrize("twin", ["qwen3", "llama3", "llama2"])
def test_words_are_learned(twin: str) -> None:
    made = tokenizer(twin)
    text = "My name is Wren. I am a small assistant."
    assert len(made.encode(text, add_special_tokens=False)) < len(text) / 2


def test_bos() -> None:
    assert tokenizer("llama3").encode("a")[0] == tokenizer("llama3").bos_token_id
    assert tokenizer("llama2").encode("a")[0] == tokenizer("llama2").bos_token_id
    assert tokenizer("qwen3").bos_token is None


def test_control_tokens_and_words() -> None:
    made = tokenizer("qwen3")
    kinds = {token.content: token.special for token in made.added_tokens_decoder.values()}
    assert kinds["<|im_start|>"] is True
    assert kinds["<think>"] is False
    assert made.decode(made.encode("<|im_start|><think>a"), skip_special_tokens=True) == "<think>a"


def test_changes_stay_with_one_tokenizer() -> None:
    one, other = tokenizer("qwen3"), tokenizer("qwen3")
    one.add_tokens(["<new>"])
    assert len(other) == len(one) - 1


HASHES = """
import hashlib
from tunewright_hf.models import tiny
for how in (("byte_level", ".+"), ("metaspace", "")):
    print(hashlib.sha256(tiny._trained(*how).encode()).hexdigest())
"""


@pytest.mark.slow
def test_the_same_in_every_process() -> None:
    found = {
        subprocess.run([sys.executable, "-c", HASHES], capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1


# ---- which template ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "template"),
    [
        ("Qwen/Qwen3-0.6B", "qwen3"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3_nothink"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_1"),
        ("LLM-Research/Meta-Llama-3.1-8B-Instruct", "llama3_1"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
    ],
)
def test_template_of_a_listed_checkpoint(model: str, template: str) -> None:
    family = FAMILIES["qwen3" if "Qwen" in model else "llama3"]
    found = family(family.Options()).template_for(model, tokenizer("llama2"))
    assert (found.name, found.told) == (template, False)


@pytest.mark.parametrize(
    ("twin", "own", "template"),
    [
        ("qwen3", None, "qwen3"),
        ("qwen3", "… multi_step_tool … enable_thinking …", "qwen3"),
        ("qwen3", "… enable_thinking …", "auto"),
        ("qwen3", "something of their own", "auto"),
        ("qwen2", None, "qwen"),
        (
            "qwen2",
            "… You are Qwen, created by Alibaba Cloud. You are a helpful assistant. …",
            "qwen",
        ),
        ("qwen2", "Please reason step by step", "auto"),
        ("llama3", None, "llama3"),
        ("llama3", "… Environment: ipython …", "llama3_1"),
        ("llama3", "<|im_start|>", "auto"),
        ("llama2", "… <<SYS>> …", "llama2"),
        ("llama2", "<|user|>", "auto"),
        ("llama2", None, None),
    ],
)
def test_template_of_an_unlisted_checkpoint(
    twin: str, own: str | None, template: str | None
) -> None:
    made = tokenizer(twin)
    made.chat_template = own
    found = FAMILIES[twin](FAMILIES[twin].Options()).template_for("my/model", made)
    assert (found.name, found.told) == (template, template is not None)


def test_lists_of_checkpoints() -> None:
    from tunewright import registry

    known = {entry.name for entry in registry.entries("template")}
    for family in set(FAMILIES.values()):
        data = family(family.Options())._data("checkpoints.toml")
        ids = [checkpoint["id"] for line in data["line"] for checkpoint in line["checkpoints"]]
        assert len(ids) == len(set(ids))
        for line in data["line"]:
            assert line["template"] in known, line["template"]
            for checkpoint in line["checkpoints"]:
                assert checkpoint["kind"] in ("base", "chat")
                assert (
                    checkpoint["size"]
                    and checkpoint["modelscope"]
                    and (checkpoint.get("license") or line["license"])
                )
