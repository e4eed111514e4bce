"""The engine hf on tiny models: one with random weights, and one that says what the test tells it
to."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from engine_setup import (  # noqa: E402
    END,
    byte_tokenizer,
    id_of,
    opened,
    parrot,
    real,
    replies,
    request,
    text_of,
)
from tunewright import Engine, RowError, RunError  # noqa: E402
from tunewright.inference import answers  # noqa: E402
from tunewright_engine_hf import HfEngine  # noqa: E402
from tunewright_hf.templates.info import TemplateInfo  # noqa: E402


@pytest.mark.parametrize("stop", [END, "</s>"])
def test_a_stop_token_ends_the_reply_and_is_no_part_of_it(stop: str) -> None:
    found = replies(parrot("Größe 🙂", id_of(stop)))
    assert text_of(found) == "Größe 🙂"
    assert found[-1].finish_reason == "stop"
    assert len(found) > 5  # streamed, not given at once


def test_the_prompt_is_rendered_up_to_where_the_model_writes() -> None:
    run = parrot("x", id_of(END))
    replies(run)
    (asked,) = run.plugin("template").asked
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
    with opened(run) as engine:
        stream = answers(engine, request(max_new_tokens=400))
        assert next(stream).text == "a"
        stream.close()
    assert run.loads().model.steps < 400


def test_an_error_in_the_model_reaches_the_caller() -> None:
    run = parrot("a")
    run.loads().model.script = []  # has no last id to say
    with pytest.raises(RunError, match="IndexError"):
        replies(run)


def test_a_real_model_is_loaded_once_and_repeats_itself_by_seed() -> None:
    run = real()
    run.loads().model.train()
    engine = opened(run)

    def say(**more: Any) -> str:
        return text_of(list(answers(engine, request(max_new_tokens=12, **more))))

    greedy = say()
    assert greedy == say()
    first = say(temperature=1.5, seed=1)
    assert first == say(temperature=1.5, seed=1)
    assert len({first, *(say(temperature=1.5, seed=seed) for seed in range(2, 6))}) > 1
    assert say(temperature=1.5, top_k=1, seed=3) == greedy
    assert run.called["load_policy"] == 1
    assert not run.loads().model.training
    engine.close()


def test_a_real_model_says_what_plain_greedy_decoding_gives() -> None:
    run, tokenizer = real(), byte_tokenizer()
    ids = tokenizer(f"<|im_start|>hi{END}", add_special_tokens=False).input_ids
    prompt = len(ids)
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(run.loads().model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert not {id_of(END), id_of("</s>")} & set(ids[prompt:]), "another seed is needed"
    assert text_of(replies(run, max_new_tokens=8)) == tokenizer.decode(ids[prompt:])


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": 0.1},
        {"do_sample": True},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 1, "suppress_tokens": [*range(60, 120)]},
    ],
)
def test_a_setting_of_the_checkpoint_does_not_count(setting: dict[str, Any]) -> None:
    how = {"max_new_tokens": 20, "temperature": 1.0, "seed": 4}
    plain, changed = real(), real()
    for name, value in setting.items():
        setattr(changed.loads().model.generation_config, name, value)
    assert text_of(replies(changed, **how)) == text_of(replies(plain, **how))


def test_it_is_an_engine() -> None:
    assert issubclass(HfEngine, Engine)


@pytest.mark.parametrize("text", ["caf\udce9", "Hi \ud83d"])
def test_a_message_that_is_no_text_of_utf_8_is_one_line(text: str) -> None:
    """As bytes of another encoding on the command line, or an emoji that was cut."""
    with pytest.raises(RowError, match="no text of UTF-8, or half of a surrogate pair") as caught:
        replies(parrot("x", id_of(END)), text=text)
    caught.value.problem.encode()
