"""The engine hf on tiny models: one with random weights, and one that says what the test tells it
to."""

import threading
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
from tunewright_hf.templates.jinja_template import TemplateInfo  # noqa: E402

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


def tiny(model_class: type[Any], tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
    )
    return model_class(config)


def parrot(text: str, *ids: int, info: TemplateInfo | None = None) -> Run:
    tokenizer = byte_tokenizer()
    model = tiny(Parrot, tokenizer)
    model.script = [*tokenizer(text, add_special_tokens=False).input_ids, *ids]
    return Run(model, tokenizer, info or TemplateInfo(stop=(END,), control=("<|im_start|>", END)))


def request(**more: Any) -> GenerateRequest:
    return GenerateRequest(Conversation([Message("user", "hi")]), **{"max_new_tokens": 50, **more})


def replies(run: Run, **more: Any) -> list[Reply]:
    return list(HfEngine(None).generate(run=run, request=request(**more)))


def text_of(found: list[Reply]) -> str:
    assert [reply.finish_reason is None for reply in found] == [True] * (len(found) - 1) + [False]
    return "".join(reply.text for reply in found)


def id_of(token: str) -> int:
    return int(byte_tokenizer().convert_tokens_to_ids(token))


@pytest.mark.parametrize("stop", [END, "</s>"])
def test_a_stop_token_ends_the_reply_and_is_no_part_of_it(stop: str) -> None:
    found = replies(parrot("Größe 🙂", id_of(stop)))
    assert text_of(found) == "Größe 🙂"
    assert found[-1].finish_reason == "stop"
    assert len(found) > 5  # streamed, not given at once


def test_the_prompt_is_rendered_up_to_where_the_model_writes() -> None:
    run = parrot("x", id_of(END))
    replies(run)
    (asked,) = run.asked
    assert asked.add_generation_prompt
    assert asked.special_tokens["eos_token"] == "</s>"


def test_the_reply_ends_after_max_new_tokens() -> None:
    found = replies(parrot("abcdefgh"), max_new_tokens=3)
    assert text_of(found) == "abc"
    assert found[-1].finish_reason == "length"


def test_stop_strings_of_the_request_and_of_a_template_without_stop_tokens() -> None:
    found = replies(parrot("one\ntwo"), stop=("\n",))
    assert (text_of(found), found[-1].finish_reason) == ("one", "stop")
    found = replies(parrot("one### Instruction", info=TemplateInfo(stop=("### Instruction",))))
    assert (text_of(found), found[-1].finish_reason) == ("one", "stop")


def test_closing_the_stream_ends_the_generation() -> None:
    run = parrot("a")
    before = threading.active_count()
    stream = HfEngine(None).generate(run=run, request=request(max_new_tokens=100_000))
    assert next(stream).text == "a"
    stream.close()
    assert threading.active_count() == before
    assert run.loaded.model.steps < 100_000


def test_an_error_in_the_model_reaches_the_caller() -> None:
    run = parrot("a")
    run.loaded.model.script = []  # has no last id to say
    with pytest.raises(IndexError):
        replies(run)


def test_a_real_model_is_loaded_once_and_repeats_itself_by_seed() -> None:
    tokenizer = byte_tokenizer()
    info = TemplateInfo(stop=(END,), control=("<|im_start|>", END))
    run = Run(tiny(LlamaForCausalLM, tokenizer).train(), tokenizer, info)
    run.loaded.model.generation_config.temperature = (
        0.1  # a checkpoint's own setting, which must not count
    )
    engine = HfEngine(None)

    def say(**more: Any) -> str:
        return text_of(list(engine.generate(run=run, request=request(max_new_tokens=12, **more))))

    greedy = say()
    assert greedy == say()
    first = say(temperature=1.5, seed=1)
    assert first == say(temperature=1.5, seed=1)
    assert len({first, *(say(temperature=1.5, seed=seed) for seed in range(2, 6))}) > 1
    assert say(temperature=1.5, top_k=1, seed=3) == greedy
    assert run.loads == 1
    assert not run.loaded.model.training


def test_a_real_model_says_what_plain_greedy_decoding_gives() -> None:
    tokenizer = byte_tokenizer()
    run = Run(
        tiny(LlamaForCausalLM, tokenizer),
        tokenizer,
        TemplateInfo(stop=(END,), control=("<|im_start|>", END)),
    )
    ids = tokenizer(f"<|im_start|>hi{END}", add_special_tokens=False).input_ids
    prompt = len(ids)
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(run.loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert not {id_of(END), id_of("</s>")} & set(ids[prompt:]), "another seed is needed"
    assert text_of(replies(run, max_new_tokens=8)) == tokenizer.decode(ids[prompt:])
