"""Token ids of every family's twin, equal to what transformers makes of the model's own chat
template."""

import tomllib
from importlib import resources
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import TemplateError

from template_cases import TALKS, render, template
from templates.test_rendering import OFFICIAL, TRL, differs
from tunewright import RowError, registry
from tunewright_conformance.cases import TODAY
from tunewright_hf.models import tiny
from tunewright_hf.templates.conversation import template_data
from tunewright_hf.tokenization.encode import Tokeniser, check_fit


def _twins() -> dict[str, tiny.TinyModelSpec]:
    """Template → the first twin that has it."""
    found: dict[str, tiny.TinyModelSpec] = {}
    for point in registry.group("family"):
        file = resources.files(point.value.partition(":")[0]) / "tiny.toml"
        for fields in tomllib.loads(file.read_text("utf-8"))["twin"]:
            found.setdefault(fields["template"], tiny.TinyModelSpec(**fields))
    return found


TWINS = _twins()
#: templates that no twin has for its own: the one whose tokenizer has their tokens
TWINS |= {
    "lfm2_5": TWINS["lfm2"],
    "llama3_1": TWINS["llama3"],
    "qwen3_5_nothink": TWINS["qwen3_5"],
    "qwen3_6": TWINS["qwen3_5"],
}


@pytest.mark.parametrize(("name", "thinking"), [*product(sorted(OFFICIAL), (None, False))])
def test_ids_equal_apply_chat_template(
    name: str, thinking: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "transformers.utils.chat_template_utils.datetime", SimpleNamespace(now=lambda: TODAY)
    )
    tokenizer, apart = tiny.tokenizer(TWINS[name]), differs(name).get("official", {})
    made = template(name, role_order="any", enable_thinking=thinking)
    check_fit(tokenizer, made.info, name)
    tokeniser, source = (
        Tokeniser(tokenizer, made.info),
        (TRL / "chat_templates" / OFFICIAL[name]).read_text(),
    )
    variables = {} if thinking is None else {"enable_thinking": thinking}
    compared = 0
    for sort, prompt in product(TALKS.keys() - apart.keys(), (False, True)):
        data: dict[str, Any] = template_data(TALKS[sort], media=False)
        try:
            rendered = render(made, TALKS[sort], tokeniser.special_tokens, prompt)
            served = tokenizer.apply_chat_template(
                [dict(message) for message in data["messages"]],
                tools=data["tools"],
                chat_template=source,
                return_dict=False,
                add_generation_prompt=prompt,
                **variables,
            )
        except (TemplateError, RowError):
            continue  # one of the two refuses it: test_official tells which
        if prompt:
            assert tokeniser.encode_prompt(rendered) == served, sort
            compared += 1
            continue
        encoded = tokeniser.encode(rendered)
        if (
            not encoded.split_tokens
        ):  # where an answer's first token would have merged with the prompt's last
            assert encoded.input_ids == served, sort
            compared += 1
    assert compared >= 10
