"""Hypothesis strategies for records of every format: nearly right, with anything anywhere."""

from typing import Any

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

#: texts that something reacts to, and any characters, halves of surrogate pairs among them
_TEXTS = (
    "",
    " ",
    "q",
    "<image>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "\x00",
    "\uf7e0",
)
_ANY = st.text(st.characters(exclude_categories=()), max_size=6)
texts: Strategy = st.just("the cat") | st.sampled_from(_TEXTS) | _ANY
said: Strategy = st.sampled_from(("the cat", "sat", "on <|im_end|> the mat")) | texts
numbers: Strategy = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**400), 1e300, 1e-300, 2**31, 2**63, 10**30])
)
leaves: Strategy = st.none() | st.booleans() | numbers | texts
values: Strategy = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def mostly(usual: Strategy) -> Strategy:
    """Now and then something else in its place."""
    return st.integers(0, 60).flatmap(
        lambda chance: values if chance == 23 else usual
    )  # not an edge


def records(required: dict[str, Strategy], optional: dict[str, Strategy]) -> Strategy:
    """Objects with these keys, few of the optional ones, and now and then others."""
    usual = st.fixed_dictionaries({key: mostly(value) for key, value in required.items()})
    more = {key: mostly(value) for key, value in optional.items() if key not in required}
    few = st.lists(st.sampled_from(sorted(more)), max_size=1) if more else st.just([])
    chosen = few.flatmap(lambda keys: st.fixed_dictionaries({key: more[key] for key in keys}))
    others = st.dictionaries(texts, values, max_size=2)
    strange = st.integers(0, 20).flatmap(lambda chance: others if chance == 7 else st.just({}))
    both = st.tuples(strange, chosen, usual).map(lambda all_: all_[0] | all_[1] | all_[2])
    return mostly(both)


arguments: Strategy = st.dictionaries(texts, values, max_size=3)
written: Strategy = arguments | st.sampled_from(
    ['{"a": 1}', '{"a": 1, "a": 2}', "{", "", "null", '{"a": "\\ud83d"}', "[" * 900, "1" * 5000]
)
calls: Strategy = records(
    {"name": texts}, {"arguments": written, "id": texts, "type": texts}
) | records({"function": records({"name": texts, "arguments": written}, {})}, {"id": texts})
schemas: Strategy = st.recursive(
    st.fixed_dictionaries(
        {}, optional={"type": texts, "default": values, "enum": values, "const": values}
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(texts, inner, max_size=2),
            "items": inner,
            "anyOf": st.lists(inner, max_size=2),
        },
    ),
    max_leaves=4,
)
functions: Strategy = records({"name": texts}, {"description": texts, "parameters": schemas})
tools: Strategy = st.lists(
    functions | records({"function": functions}, {"type": texts}), max_size=2
) | st.sampled_from(["[]", "[{}]", '[{"name": "f", "name": "g"}]'])
loss: dict[str, Strategy] = {
    key: st.booleans() | numbers for key in ("weight", "loss_weight", "train", "training", "loss")
}
thinking: dict[str, Strategy] = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), texts)
media: dict[str, Strategy] = dict.fromkeys(
    ("images", "videos", "audios"), texts | st.lists(texts, max_size=2)
)
beside: dict[str, Strategy] = {
    "system": texts,
    "tools": tools,
    "functions": st.lists(functions),
    **media,
}

parts: Strategy = records(
    {
        "type": st.sampled_from(
            ["text", "image", "image_url", "input_audio", "reasoning", "tool_call"]
        )
    },
    {"text": texts, "image": texts, "image_url": records({"url": texts}, {}), "value": values},
)
_MESSAGE_KEYS: dict[str, Strategy] = {
    "tool_calls": st.lists(calls, max_size=2),
    "function_call": calls,
    "name": texts,
    **loss,
    **thinking,
}


def _in_turn(system: Strategy, others: list[Strategy]) -> Strategy:
    """Lists of turns in an order that makes sense, or, now and then, in any."""
    whole = st.integers(1, 2).map(lambda count: others * count)
    ordered = whole.flatmap(lambda kinds: st.tuples(*kinds)).map(list)
    begun = st.tuples(system, ordered).map(lambda both: [both[0], *both[1]])
    return ordered | begun | st.lists(st.one_of(system, *others), max_size=4)


def _message(role: str, content: Strategy) -> Strategy:
    return records({"role": st.just(role), "content": content}, _MESSAGE_KEYS)


_content = said | st.lists(parts, max_size=2)
messages: Strategy = _in_turn(
    _message("system", said),
    [_message("user", _content), _message("assistant", _content)],
) | _in_turn(
    _message("developer", said),
    [
        _message("user", said),
        records(
            {"role": st.just("assistant"), "tool_calls": st.lists(calls, min_size=1, max_size=1)},
            {"content": said, **thinking},
        ),
        _message("tool", said),
        _message("assistant", said),
    ],
)


def _turn(role: str, value: Strategy) -> Strategy:
    return records({"from": st.just(role), "value": value}, {**loss, **thinking})


_called: Strategy = st.sampled_from(
    [
        '{"name": "f", "arguments": {}}',
        '<think>x</think>[{"name": "f"}]',
        "<tool_call>{}</tool_call>",
    ]
)
turns: Strategy = _in_turn(
    _turn("system", said), [_turn("human", said), _turn("gpt", said)]
) | _in_turn(
    _turn("system", said),
    [
        _turn("human", said),
        _turn("function_call", _called | written),
        _turn("observation", said),
        _turn("gpt", said),
    ],
)
asked: dict[str, Strategy] = {
    "prompt": said | messages | turns,
    "instruction": said,
    "input": texts,
    "history": st.lists(st.lists(texts, max_size=3), max_size=2),
    "conversations": turns,
    "messages": messages,
    **beside,
}
questions: Strategy = said | messages | turns
answers: Strategy = said | questions | st.just([{"role": "assistant", "content": "sat"}])
_ranked: Strategy = st.integers(1, 3).flatmap(
    lambda count: st.tuples(
        st.lists(said, min_size=count, max_size=count),
        st.lists(numbers | st.integers(0, 3), min_size=count, max_size=count),
    )
)

_segment: Strategy = st.fixed_dictionaries(
    {"text": said}, optional={"train": st.booleans(), "label": st.booleans(), "weight": numbers}
)

#: format → its records
FORMATS: dict[str, Strategy] = {
    "alpaca": records({"instruction": said, "output": said}, {**asked, **thinking}),
    "sharegpt": records({"conversations": turns}, beside),
    "openai": records({"messages": messages}, {"chat_template_kwargs": arguments, **beside}),
    "text": records({"text": said}, {}) | texts,
    "rendered": records({"text": said}, {})
    | records({"prompt": said, "completion": said}, {})
    | records({"segments": st.lists(_segment, max_size=3)}, {}),
    "prompt_completion": records(
        {"prompt": questions, "completion": answers}, {**asked, **thinking}
    ),
    "preference": records(
        {"prompt": said, "chosen": answers, "rejected": answers}, {"margin": numbers, **asked}
    )
    | records({"chosen": answers, "rejected": answers}, {"margin": numbers, **asked}),
    "ranking": _ranked.flatmap(
        lambda ranked: records(
            {"prompt": said, "answers": st.just(ranked[0]), "scores": st.just(ranked[1])}, asked
        )
    ),
    "unpaired": records(
        {"prompt": said, "completion": answers, "label": st.booleans()}, {"kto_tag": texts, **asked}
    )
    | records({"messages": messages, "kto_tag": st.booleans()}, {"output": answers, **asked}),
    "labelled": records({"text": said, "label": said | numbers | st.lists(said, max_size=3)}, {}),
    "stepwise": records(
        {
            "prompt": said,
            "completions": st.lists(said, min_size=1, max_size=3),
            "labels": st.lists(st.booleans(), min_size=1, max_size=3),
        },
        asked,
    ),
    "retrieval": records(
        {"query": said, "positive": said | st.lists(said, max_size=3)},
        {"negative": said, "negatives": st.lists(said, max_size=3)},
    ),
    "prompts": records({"prompt": questions}, {"answer": values, **asked})
    | records({"messages": messages.map(lambda found: found[:-1])}, {"answer": values, **asked}),
}
