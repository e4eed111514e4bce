"""Tiny models and a run for tests of the engine hf, without plugins."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from transformers.modeling_outputs import CausalLMOutputWithPast  # noqa: E402

from tunewright import Template, hookimpl  # noqa: E402
from tunewright.inference import (  # noqa: E402
    EngineRequest,
    GenerateRequest,
    InferenceEngine,
    Piece,
    answers,
)
from tunewright.types import (  # noqa: E402
    Conversation,
    LoadedModel,
    Message,
    Rendered,
    TemplateRequest,
)
from tunewright_conformance.doubles import FakeRun  # noqa: E402
from tunewright_engine_hf import HfEngine  # noqa: E402
from tunewright_hf.templates.info import TemplateInfo  # noqa: E402

END = "<|im_end|>"
INFO = TemplateInfo(stop=(END,), control=("<|im_start|>", END))


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


class Plain(Template):
    """Writes what is said between two tokens, and remembers what it was asked."""

    def __init__(self, info: TemplateInfo) -> None:
        super().__init__(None, "plain")
        self.info = info
        self.asked: list[TemplateRequest] = []

    @hookimpl
    def format_template(self, request: TemplateRequest) -> Rendered:
        self.asked.append(request)
        return Rendered(
            "".join(f"<|im_start|>{m.content}{END}" for m in request.conversation.messages)
        )


def run_of(model: Any, tokenizer: Any, info: TemplateInfo) -> FakeRun:
    """A run whose policy is this model; `run.loads()` gives it without being counted."""
    loaded = LoadedModel(model, tokenizer)
    return FakeRun(plugins={"template": Plain(info)}, loads=lambda: loaded)


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


def parrot(text: str, *ids: int, info: TemplateInfo | None = None) -> FakeRun:
    tokenizer = byte_tokenizer()
    model = tiny(Parrot, tokenizer)
    model.script = [*tokenizer(text, add_special_tokens=False).input_ids, *ids]
    return run_of(
        model, tokenizer, info or TemplateInfo(stop=(END,), control=("<|im_start|>", END))
    )


def real(**more: Any) -> FakeRun:
    """A run of a Llama with random weights. more: of its config."""
    tokenizer = byte_tokenizer()
    return run_of(tiny(LlamaForCausalLM, tokenizer, **more), tokenizer, INFO)


def request(text: str = "hi", **more: Any) -> GenerateRequest:
    return GenerateRequest(Conversation([Message("user", text)]), **{"max_new_tokens": 50, **more})


def opened(run: FakeRun, **more: Any) -> InferenceEngine:
    """The engine hf over the run's model. more: of the EngineRequest."""
    return HfEngine(HfEngine.Options()).open_engine(run=run, request=EngineRequest(**more))


def replies(run: FakeRun, **more: Any) -> list[Piece]:
    with opened(run) as engine:
        return list(answers(engine, request(**more)))


def text_of(found: list[Piece]) -> str:
    assert [reply.finish_reason is None for reply in found] == [True] * (len(found) - 1) + [False]
    return "".join(reply.text for reply in found)


def id_of(token: str) -> int:
    return int(byte_tokenizer().convert_tokens_to_ids(token))
