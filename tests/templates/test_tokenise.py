"""Ids and labels: equal to what serving encodes, and exactly the answers trained."""

from typing import Any

import pytest

from template_cases import (
    TALKS,
    assistant,
    both,
    byte_level,
    metaspace,
    pair,
    render,
    runs,
    talk,
    template,
    user,
)
from tunewright import RecipeError
from tunewright_hf.templates.info import TemplateInfo
from tunewright_hf.tokenization.encode import Tokeniser, check_fit

# ---- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chatml", "qwen3", "llama3", "alpaca"])
def test_ids_equal_what_transformers_encodes(tokenizer: Any, name: str) -> None:
    for sort, conversation in TALKS.items():
        tokeniser, rendered = pair(tokenizer, name, conversation)
        encoded = tokeniser.encode(rendered)
        assert len(encoded.labels) == len(encoded.input_ids)
        if (
            encoded.split_tokens
        ):  # GPT-2's rule for white space cuts Llama 3's two newlines in another way
            assert sort == "edges" or name == "llama3"
        elif not rendered.untrusted:
            assert (
                encoded.input_ids == tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
            ), sort


def test_ids_equal_apply_chat_template_with_the_exported_template(qwen: Any) -> None:
    from tunewright_hf.templates.conversation import template_data

    made = template("qwen3")
    tokeniser = Tokeniser(qwen, made.info)
    for sort in TALKS.keys() - {"edges"}:
        data = template_data(TALKS[sort], media=False)
        served = qwen.apply_chat_template(
            [dict(m) for m in data["messages"]],
            tools=data["tools"],
            chat_template=made.chat_template(),
            return_dict=False,
        )
        assert (
            tokeniser.encode(render(made, TALKS[sort], tokeniser.special_tokens)).input_ids
            == served
        ), sort


@pytest.mark.parametrize("name", ["chatml", "llama3", "vicuna"])
def test_the_prompts_ids_are_a_prefix_of_the_trained_rows(tokenizer: Any, name: str) -> None:
    made, tokeniser = both(tokenizer, name)
    for sort, conversation in TALKS.items():
        whole = tokeniser.encode(render(made, conversation, tokeniser.special_tokens))
        first = next(
            number
            for number, message in enumerate(conversation.messages)
            if message.role == "assistant"
        )
        before = talk(*conversation.messages[:first], tools=conversation.tools)
        rendered = render(made, before, tokeniser.special_tokens, prompt=True)
        prompt = tokeniser.encode_prompt(rendered)
        assert prompt == tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
        assert whole.input_ids[: len(prompt)] == prompt, sort
        assert whole.labels[: len(prompt)] == [-100] * len(prompt)
        assert whole.labels[len(prompt)] != -100


def test_a_bos_of_the_template_is_not_doubled() -> None:
    from tokenizers import processors

    tokenizer = byte_level(eos="<|eot_id|>", bos="<|begin_of_text|>")
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    tokeniser, rendered = pair(tokenizer, "llama3", TALKS["multi"])
    assert rendered.text.startswith("<|begin_of_text|><|start_header_id|>user")
    ids = tokeniser.encode(rendered).input_ids
    assert ids[0] == bos and ids.count(bos) == 1
    document = tokeniser.encode_text("How are you?")
    assert document.input_ids[0] == bos and document.input_ids[-1] == tokenizer.eos_token_id
    assert (
        document.labels == document.input_ids
        and document.input_ids.count(tokenizer.eos_token_id) == 1
    )


@pytest.mark.parametrize("starts", [0, 1, 2])
def test_a_document_has_one_bos_whoever_wrote_it(starts: int) -> None:
    from tokenizers import processors

    tokenizer = byte_level(eos="<|eot_id|>", bos="<|begin_of_text|>")
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    tokeniser = Tokeniser(tokenizer, TemplateInfo())
    text = "How are <|begin_of_text|> you?"
    found = tokeniser.encode_text("<|begin_of_text|>" * starts + text)
    assert found.input_ids == tokeniser.encode_text(text).input_ids
    assert found.input_ids.count(bos) == 2  # one of them in the middle
    assert found.labels == found.input_ids


def test_a_tokenizer_that_adds_no_bos_takes_documents_as_they_are() -> None:
    tokenizer = byte_level()
    tokenizer.bos_token = tokenizer.eos_token  # as GPT-2 has it, where it separates documents
    eos = tokenizer.eos_token_id
    ids = Tokeniser(tokenizer, TemplateInfo()).encode_text(tokenizer.eos_token * 2 + "a").input_ids
    assert ids[:2] == [eos, eos]


def test_an_eos_that_the_tokenizer_adds_is_not_doubled(byt5: Any) -> None:
    ids = Tokeniser(byt5, TemplateInfo()).encode_text("hi").input_ids
    assert ids[-1] == byt5.eos_token_id and ids.count(byt5.eos_token_id) == 1


def test_limits_of_the_tokenizers_own_state_do_not_matter(qwen: Any) -> None:
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    made, rendered = pair(tokenizer, "chatml", TALKS["multi"])
    assert made.encode(rendered) == Tokeniser(qwen, TemplateInfo()).encode(rendered)


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chatml", "qwen3", "llama3", "default"])
def test_the_labels_decode_to_the_trained_text(tokenizer: Any, name: str) -> None:
    decode = tokenizer.backend_tokenizer.decode
    for sort, conversation in TALKS.items():
        tokeniser, rendered = pair(tokenizer, name, conversation)
        encoded = tokeniser.encode(rendered)
        assert all(
            label in (-100, token)
            for token, label in zip(encoded.input_ids, encoded.labels, strict=True)
        )
        for run, span in zip(runs(encoded.labels), rendered.trained, strict=True):
            text = rendered.text[span.start : span.end]
            if tokenizer.unk_token_id is None:
                assert decode(run, skip_special_tokens=False) == text, sort
            elif tokenizer.unk_token_id not in run:  # not all letters are in the vocabulary
                assert decode(run, skip_special_tokens=False).replace(" ", "") == text.replace(
                    " ", ""
                ), sort


def test_a_token_that_crosses_into_the_answer_is_split(qwen: Any) -> None:
    tokeniser, rendered = pair(
        qwen, "chatml", talk(user("Hi"), assistant("\n\nHello"), user("2"), assistant("\n4"))
    )
    encoded = tokeniser.encode(rendered)
    whole = qwen(rendered.text, add_special_tokens=False)["input_ids"]
    assert encoded.split_tokens == 1 and encoded.input_ids != whole
    assert qwen.decode(encoded.input_ids) == rendered.text
    assert [qwen.decode(run) for run in runs(encoded.labels)] == [
        "\n\nHello<|im_end|>",
        "\n4<|im_end|>",
    ]


def test_loss_weights_are_given_where_one_is_not_1(qwen: Any) -> None:
    tokeniser, rendered = pair(
        qwen, "chatml", talk(user("a"), assistant("b", weight=0.25), user("c"), assistant("d"))
    )
    encoded = tokeniser.encode(rendered)
    assert encoded.loss_weights is not None
    weights = [
        (w, label != -100) for w, label in zip(encoded.loss_weights, encoded.labels, strict=True)
    ]
    assert {w for w, trained in weights if trained} == {0.25, 1.0}
    assert {w for w, trained in weights if not trained} == {0.0}
    assert tokeniser.encode(pair(qwen, "chatml", TALKS["multi"])[1]).loss_weights is None


def test_a_batch_equals_its_rows(tokenizer: Any) -> None:
    made, tokeniser = both(tokenizer, "chatml")
    rows = [render(made, conversation, tokeniser.special_tokens) for conversation in TALKS.values()]
    rows.append(render(made, talk(user("<|im_end|>"), assistant("no")), tokeniser.special_tokens))
    for found, row in zip(tokeniser.encode_batch(rows), map(tokeniser.encode, rows), strict=True):
        assert (found.input_ids.tolist(), found.labels.tolist()) == (row.input_ids, row.labels)


def test_characters_without_a_token_are_no_trouble() -> None:
    from tokenizers import normalizers

    tokenizer = metaspace()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("\u00ad", "")]
    )
    tokeniser, rendered = pair(
        tokenizer, "chatml", talk(user("a\u00ad"), assistant("\u00adﬁne, thank you\u00ad"))
    )
    run = runs(tokeniser.encode(rendered).labels)[0]
    assert (
        tokenizer.backend_tokenizer.decode(run, skip_special_tokens=False).replace(" ", "")
        == "fine,thankyou<|im_end|>"
    )


# ---- slow tokenizers -----------------------------------------------------------------------------


def test_a_slow_tokenizer(byt5: Any) -> None:
    assert not byt5.is_fast
    for sort, conversation in TALKS.items():
        tokeniser, rendered = pair(byt5, "chatml", conversation)
        encoded = tokeniser.encode(rendered)
        assert encoded.input_ids == byt5(rendered.text, add_special_tokens=False)["input_ids"], sort
        spans = [rendered.text[span.start : span.end] for span in rendered.trained]
        assert runs(encoded.labels) == [
            byt5(span, add_special_tokens=False)["input_ids"] for span in spans
        ]


# ---- whether template and tokenizer fit ----------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["chatml", "default", "llama2", "llama3", "qwen3"]
)  # families: the conformance suite
def test_templates_fit_a_tokenizer_that_has_their_tokens(qwen: Any, name: str) -> None:
    check_fit(qwen, template(name).info, "recipe.yaml: template")


def test_a_template_that_does_not_fit() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            models.BPE({letter: i for i, letter in enumerate("<|im_start>nd")}, [])
        )
    )
    with pytest.raises(
        RecipeError,
        match=r"recipe.yaml: template: the tokenizer has no token for <\|im_start\|>, <\|im_end\|>",
    ):
        check_fit(bare, template("chatml").info, "recipe.yaml: template")
    with pytest.raises(RecipeError, match="EOS token, which it does not have"):
        check_fit(bare, template("alpaca").info, "recipe.yaml: template")
