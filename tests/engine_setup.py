"""Tiny models and a run for tests of the engine hf, without plugins."""

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from transformers.modeling_outputs import CausalLMOutputWithPast  # noqa: E402

from tunewright.types import (  # noqa: E402
    Conversation,
    GenerateRequest,
    LoadedModel,
    Message,
    Rendered,
    Reply,
    TemplateRequest,
)
from tunewright_engine_hf import HfEngine  # noqa: E402
from tunewright_hf.templates.info import TemplateInfo  # noqa: E402

END = "<|im_end|>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and three special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", END]})
    return fast


class Parrot(LlamaForCausalLM):
    """Gives the probability 1 to the ids of a script, one after the other, and the last one for
    ever."""

    script: list[int]
    steps = 0

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        logits = torch.full((1, 1, self.config.vocab_size), -1e9)
        logits[0, 0, self.script[min(self.steps, len(self.script) - 1)]] = 0
        self.steps += 1
        return CausalLMOutputWithPast(logits=logits)


class Run:
    """As much of a run as an engine sees."""

    def __init__(self, model: Any, tokenizer: Any, info: TemplateInfo) -> None:
        self.loaded = LoadedModel(model, tokenizer)
        self.info, self.loads = info, 0
        self.asked: list[TemplateRequest] = []

    def load_policy(self) -> LoadedModel:
        self.loads += 1
        return self.loaded

    def plugin(self, kind: str) -> Any:
        return SimpleNamespace(info=self.info)

    def call(self, kind: str, hook: str, request: TemplateRequest) -> Rendered:
        assert (kind, hook) == ("template", "format_template")
        self.asked.append(request)
        return Rendered(
            "".join(f"<|im_start|>{m.content}{END}" for m in request.conversation.messages)
        )


def tiny(model_class: type[Any], tokenizer: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    settings = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    config = LlamaConfig(vocab_size=len(tokenizer), **settings | more)
    return model_class(config)


def parrot(text: str, *ids: int, info: TemplateInfo | None = None) -> Run:
    tokenizer = byte_tokenizer()
    model = tiny(Parrot, tokenizer)
    model.script = [*tokenizer(text, add_special_tokens=False).input_ids, *ids]
    return Run(model, tokenizer, info or TemplateInfo(stop=(END,), control=("<|im_start|>", END)))


def real(**more: Any) -> Run:
    """A run of a Llama with random weights. more: of its config."""
    tokenizer = byte_tokenizer()
    info = TemplateInfo(stop=(END,), control=("<|im_start|>", END))
    return Run(tiny(LlamaForCausalLM, tokenizer, **more), tokenizer, info)


def request(text: str = "hi", **more: Any) -> GenerateRequest:
    return GenerateRequest(Conversation([Message("user", text)]), **{"max_new_tokens": 50, **more})


def replies(run: Run, **more: Any) -> list[Reply]:
    return list(HfEngine(None).generate(run=run, request=request(**more)))


def text_of(found: list[Reply]) -> str:
    assert [reply.finish_reason is None for reply in found] == [True] * (len(found) - 1) + [False]
    return "".join(reply.text for reply in found)


def id_of(token: str) -> int:
    return int(byte_tokenizer().convert_tokens_to_ids(token))
