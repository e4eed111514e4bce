"""Offline tokenizers of every sort."""

from typing import Any

import pytest

from template_cases import byte_level, metaspace


@pytest.fixture(scope="module")
def byt5() -> Any:
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer(extra_ids=0, additional_special_tokens=["<|im_start|>", "<|im_end|>"])


TOKENIZERS: dict[str, Any] = {}


@pytest.fixture(scope="module", params=["byte_level", "first", "always", "never", "legacy"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    if request.param not in TOKENIZERS:
        TOKENIZERS[request.param] = (
            byte_level() if request.param == "byte_level" else metaspace(request.param)
        )
    return TOKENIZERS[request.param]


@pytest.fixture(scope="module")
def qwen() -> Any:
    return byte_level()
