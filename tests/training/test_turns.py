"""What an environment says after generated ids is encoded as the whole conversation would be."""

from types import SimpleNamespace
from typing import Any

import pytest

from template_cases import CALL, WEATHER, assistant, render, talk, template, tool, user
from templates.test_ids import TWINS
from tunewright import RowError
from tunewright.types import Conversation, Message
from tunewright_grpo.turns import TurnEncoder
from tunewright_hf.models import tiny
from tunewright_hf.tokenization.encode import Encoded, Tokeniser

ASKED = [user("Weather in Zürich?")]
#: what the model generated, and what follows
TURNS = {
    "tool": (assistant("", tool_calls=[CALL]), [tool('{"temp": 21}')]),
    "two_tools": (assistant("", tool_calls=[CALL, CALL]), [tool("21"), tool("<|im_end|>22")]),
    "user": (assistant("Is it 20?"), [user("No, it is  warmer.\n")]),
}


def encoder(name: str) -> tuple[TurnEncoder, Any, Tokeniser]:
    made, tokenizer = template(name), tiny.tokenizer(TWINS[name])

    def call(kind: str, hook: str, request: Any) -> Any:
        assert (kind, hook) == ("template", "format_template")
        return made.format_template(request)

    run: Any = SimpleNamespace(plugin=lambda kind: made, call=call)
    return TurnEncoder(run, tokenizer), made, Tokeniser(tokenizer, made.info)


def whole(made: Any, tokeniser: Tokeniser, messages: list[Message]) -> Encoded | None:
    """The conversation with its tools, and the beginning of the next answer; None: refused."""
    asked = Conversation(messages, [WEATHER])
    try:
        rendered = render(made, asked, tokeniser.special_tokens, prompt=True)
    except RowError:
        return None
    return tokeniser.encode(rendered)


@pytest.mark.parametrize("sort", TURNS)
@pytest.mark.parametrize("name", sorted(TWINS))
def test_equals_the_whole_conversation(name: str, sort: str) -> None:
    turns, made, tokeniser = encoder(name)
    answer, says = TURNS[sort]
    if sort != "user" and not (made.info.reply.call or made.info.reply.python):
        pytest.skip("has no form for tool calls")
    expected = whole(made, tokeniser, [*ASKED, answer, *says])
    if expected is None:
        with pytest.raises(RowError):
            turns.following(answer, says, [WEATHER])
        return
    found = turns.following(answer, says, [WEATHER])
    assert found == expected.input_ids[-len(found) :]
    # it begins where what the model generates ends
    end = len(expected.labels) - len(found)
    assert expected.labels[end - 1] != -100
    assert set(expected.labels[end:]) == {-100}


def test_a_message_is_parsed_from_its_ids() -> None:
    turns, made, tokeniser = encoder("qwen3")
    rendered = render(made, talk(*ASKED, TURNS["tool"][0], tools=[WEATHER]))
    (span,) = rendered.trained
    ids = tokeniser.encode_prompt(type(rendered)(rendered.text[span.start : span.end]))
    assert turns.message(ids, [WEATHER]).tool_calls[0].arguments == CALL.arguments
