"""The quick way to ids gives what the careful one gives, and stands aside where it cannot."""

import json
from array import array
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from template_cases import (
    CORPUS,
    FILES,
    TALKS,
    assistant,
    both,
    byte_level,
    metaspace,
    render,
    system,
    talk,
    user,
)
from tunewright import RowError
from tunewright_hf.templates import control_tokens
from tunewright_hf.tokenization import byte_level_bpe as words_module
from tunewright_hf.tokenization.byte_level_bpe import ByteLevelBpe
from tunewright_hf.tokenization.fast_path import FastPath

#: as their makers publish them
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| "
        r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "llama3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| "
        r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def made(pattern: str = PATTERNS["qwen"], normalizer: Any = None, **model: Any) -> Tokenizer:
    found = Tokenizer(models.BPE(**model))
    found.normalizer = normalizer or normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    found.train_from_iterator(
        [*CORPUS, "It's they'LL naïve café “quotes” – 12,345.67\r\n"] * 3, trainer
    )
    return found


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    gpt2 = Tokenizer.from_str(byte_level().backend_tokenizer.to_str())
    return {name: made(pattern) for name, pattern in PATTERNS.items()} | {
        "GPT-2 without a split": gpt2
    }


def unpacked(found: list[bytes]) -> list[list[int]]:
    return [array("i", ids).tolist() for ids in found]


covered = st.text(st.sampled_from(words_module._COVERED), max_size=40)
likely = st.text(st.sampled_from("aAbsSltdLrevm 0123'\n\r\t.,-_—éÀ’\xa0\x1c\u0301日ſ"), max_size=40)


@settings(deadline=None)
@given(st.lists(covered | likely | st.text(max_size=20), max_size=6))
def test_ids_are_the_tokenizers(tokenizers: dict[str, Tokenizer], texts: list[str]) -> None:
    for name, tokenizer in tokenizers.items():
        words = KNOWN.get(name) or KNOWN.setdefault(name, ByteLevelBpe.of(tokenizer))
        assert words, name
        expected = [
            encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)
        ]
        assert unpacked(words.encode(texts)) == expected, name
        assert unpacked(words.encode(texts)) == expected, name  # from the table


KNOWN: dict[str, Any] = {}


def test_few_words_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words_module, "LIMIT", 10)
    tokenizer = made()
    words = ByteLevelBpe.of(tokenizer)
    assert words
    for start in range(0, 200, 20):
        texts = [f"word{number} {'x' * 100}" for number in range(start, start + 20)]
        assert unpacked(words.encode(texts)) == [tokenizer.encode(text).ids for text in texts]
        assert len(words._known) <= 10 + 41
        assert max(map(len, words._known)) <= 64


def without(change: Any) -> Tokenizer:
    """The state of a tokenizer that fits, changed."""
    state = json.loads(made().to_str())
    change(state)
    return Tokenizer.from_str(json.dumps(state))


DIGITS = {"type": "Digits", "individual_digits": True}


def added(**flags: bool) -> Tokenizer:
    tokenizer = made()
    tokenizer.add_tokens([AddedToken("<x>", **{"normalized": False, **flags})])
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        Tokenizer.from_str(metaspace().backend_tokenizer.to_str()),
        made(normalizer=normalizers.NFKC()),
        made(normalizer=normalizers.Lowercase()),
        made(dropout=0.5),
        made(r"\p{Han}+|\p{L}+(?= )|."),
        made(r"\w+|[^\w\s]+|\s+"),  # \w is not the same in both
        without(
            lambda state: state["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True)
        ),
        without(
            lambda state: state["pre_tokenizer"]["pretokenizers"][0].update(
                behavior="MergedWithNext"
            )
        ),
        without(lambda state: state["pre_tokenizer"]["pretokenizers"].insert(0, DIGITS)),
        without(lambda state: state.update(pre_tokenizer=None)),
        added(lstrip=True),
        added(rstrip=True),
        added(single_word=True),
        added(normalized=True),
    ],
)
def test_other_builds_are_left_alone(tokenizer: Tokenizer) -> None:
    assert ByteLevelBpe.of(tokenizer) is None
    assert FastPath.of(tokenizer) is None


def test_it_must_cut_as_the_tokenizer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = made()
    real = words_module._python
    monkeypatch.setattr(
        words_module, "_python", lambda pattern: real(pattern.replace(r"\p{N}", r"\p{N}{1,3}"))
    )
    assert ByteLevelBpe.of(tokenizer) is None


# ---- rows ----------------------------------------------------------------------------------------

text = (
    st.text(max_size=12)
    | st.sampled_from(["\n", "\n\nx", " x", "it's", "<|im_end|>", "<think>", "é日", ""])
    | likely
)
turn = st.tuples(text, text, st.sampled_from([None, 0.0, 0.5]))
talks = st.builds(
    lambda begins, turns: talk(
        *([system(begins)] if begins else []),
        *(message for q, a, weight in turns for message in (user(q), assistant(a, weight=weight))),
    ),
    text,
    st.lists(turn, min_size=1, max_size=3),
)


def listed(tokeniser: Any, rows: list[Any]) -> list[Any]:
    """Result of a batch, with lists as `encode` returns them."""
    return [
        replace(row, input_ids=row.input_ids.tolist(), labels=row.labels.tolist())
        for row in tokeniser.encode_batch(rows)
    ]


@pytest.fixture(scope="module")
def qwen_like() -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = made()
    names = [
        "<|endoftext|>",
        "<s>",
        "</s>",
        "<|im_start|>",
        "<|im_end|>",
        "<|begin_of_text|>",
        "<|start_header_id|>",
    ]
    names += ["<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    tokenizer.add_tokens(
        [AddedToken(word, normalized=False) for word in ("<think>", "</think>", "\n\n")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<s>"
    )


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(talks, min_size=1, max_size=5),
    st.sampled_from(["chatml", "qwen3", "llama3", "alpaca"]),
)
def test_a_batch_is_what_its_rows_are(qwen_like: Any, conversations: list[Any], name: str) -> None:
    plugin, tokeniser = both(qwen_like, name)
    rendered = []
    for conversation in conversations:
        try:
            rendered.append(render(plugin, conversation, tokeniser.special_tokens))
        except RowError:
            continue
    try:
        careful = [tokeniser.encode(row) for row in rendered]
    except RowError:
        return
    assert listed(tokeniser, [row for row in rendered for _ in range(32)])[::32] == careful


@pytest.mark.parametrize("name", FILES)
def test_quick_and_careful_agree_on_all_templates(qwen_like: Any, name: str) -> None:
    plugin, tokeniser = both(qwen_like, name)
    found = []
    for conversation in TALKS.values():
        try:
            found.append(render(plugin, conversation, tokeniser.special_tokens))
        except RowError:
            continue
    assert found
    assert listed(tokeniser, found * 32) == [tokeniser.encode(row) for row in found] * 32


def test_ordinary_rows_go_the_quick_way(qwen_like: Any) -> None:
    plugin, tokeniser = both(qwen_like, "qwen3")
    rows = [render(plugin, talk(user(f"{n}?"), assistant(f"{n}!"))) for n in range(40)]
    quick = FastPath.of(tokeniser._encoder.plain)  # type: ignore[attr-defined]  # a fast one
    assert quick
    assert None not in quick.encode(rows)


# ---- marks -----------------------------------------------------------------------------

marks_and_text = st.lists(
    st.sampled_from(
        [
            "a",
            "\n",
            "7",
            "é",
            "٣",
            *map(chr, range(0xF7E0, 0xF7E7)),
            "\uf7e03\uf7e1",
            "\uf7e0\uf7e1",
            "x\uf7e2",
        ]
    )
).map("".join)


@given(marks_and_text)
def test_marks_are_cut_the_same_in_both_ways(marked: str) -> None:
    simple = control_tokens._cut_simple(marked)
    assert simple is None or simple == control_tokens._cut_any(marked)
    assert control_tokens._cut_simple("a\uf7e03\uf7e1b\uf7e2c") == control_tokens.Cut(
        "abc", [(1, 2, 3)]
    )
