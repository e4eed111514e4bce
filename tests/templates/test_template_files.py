"""Options of templates, the order of roles, and template files, bad ones too."""

from pathlib import Path
from typing import Any

import pytest

from template_cases import TALKS, assistant, render, system, talk, template, tool, trained, user
from tunewright import RecipeError, RowError
from tunewright.types import MediaPart, Message, TextPart
from tunewright_hf.templates.jinja_template import from_file

# ---- options, roles, contents --------------------------------------------------------------------


def test_a_system_prompt_of_ones_own() -> None:
    rendered = render(template("qwen", system='Say "hi"\n\\o/ 日本'), TALKS["single"])
    assert rendered.text.startswith('<|im_start|>system\nSay "hi"\n\\o/ 日本<|im_end|>\n')
    with pytest.raises(RecipeError, match="no default system prompt"):
        template("chatml", system="x")


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([assistant("x")], "message 1 is from assistant, expected system or user to begin with"),
        ([user("x"), user("y")], "message 2 is from user, expected assistant after user"),
        ([user("x"), system("y")], "message 2 is from system, expected assistant after user"),
        (
            [user("x"), assistant("y"), assistant("z")],
            "message 3 is from assistant, expected user after assistant",
        ),
        (
            [user("x"), assistant("y"), tool("z")],
            "message 3 is from tool, expected user after assistant",
        ),
        (
            [user("x"), TALKS["tool"].messages[2], user("z")],
            "message 3 is from user, expected tool after the assistant's",
        ),
        ([], "has no messages"),
    ],
)
def test_a_wrong_order_of_roles(messages: list[Message], problem: str) -> None:
    with pytest.raises(RowError) as error:
        render(template("chatml"), talk(*messages))
    assert problem in str(error.value) and str(error.value).startswith("data.jsonl:7: ")


def test_any_order_where_asked() -> None:
    text = render(
        template("chatml", role_order="any"), talk(user("x"), user("y"), assistant("z"))
    ).text
    assert text.count("<|im_start|>user") == 2


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(
        RowError, match="refuses this conversation: only the first message can be a system message"
    ):
        render(template("alpaca", role_order="any"), talk(user("x"), system("y")))


def test_a_prompt_needs_the_assistants_turn() -> None:
    with pytest.raises(RowError, match="message 3 is from assistant, expected user"):
        render(template("chatml"), TALKS["single"], prompt=True)


def test_parts_become_text_and_media_an_error() -> None:
    parts = Message("user", [TextPart("Hi "), TextPart("there")])
    assert (
        "user\nHi there<|im_end|>"
        in render(template("chatml"), talk(parts, assistant("Hello"))).text
    )
    picture = Message("user", [TextPart("Look"), MediaPart("image", "a.png")])
    with pytest.raises(
        RowError, match=r"data.jsonl:7: message 1 has image, and this template has no place for it"
    ):
        render(template("chatml"), talk(picture, assistant("Hello")))


# ---- the file ------------------------------------------------------------------------------------


def write(folder: Path, source: str) -> Any:
    path = folder / "mine.jinja"
    path.write_text(source)
    made = from_file(path)
    return made(made.Options(), "mine")


def test_a_file_without_a_head(tmp_path: Path) -> None:
    made = write(
        tmp_path,
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}<|end|>{% endgeneration %}{% endif %}{% endfor %}",
    )
    assert made.info.control == ("<|end|>",)
    assert trained(render(made, TALKS["multi"])) == [
        "Hello!<|end|>",
        "4.<|end|>",
        "Bye!<|end|>",
    ]  # counted: no `message`


def test_spans_that_fit_no_message(tmp_path: Path) -> None:
    made = write(tmp_path, "{% generation %}x{% endgeneration %}")
    with pytest.raises(RecipeError, match="1 spans for 3 messages"):
        render(made, TALKS["multi"])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{#- tunewright\nstop = -#}", "the head comment is not TOML"),
        ("{#- tunewright\nstopp = []\n-#}", "unknown in the head comment: stopp"),
        ("{#- tunewright\n[options.a]\ndefault = 1\ndescription = 'b'\n-#}", "options.a: expected"),
        ("{#- tunewright\n[options.a]\ndefault = 'b'\n-#}", "options.a: expected"),
        ("{% if %}", "the template cannot be read, line 1"),
        ("{% include 'x' %}", "may not load other templates"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "what the sandbox forbids"),
        ("{{ (messages|attr('__class__')).mro() }}", "what the sandbox forbids"),
        ("{{ '{0.__class__.__mro__}'.format(1) }}", "what the sandbox forbids"),
        ("{% set f = '{0.__class__.__mro__}'.format %}{{ f(1) }}", "what the sandbox forbids"),
        ("{% set n = namespace(__class__=1) %}", "what the sandbox forbids"),
        ("{% set n = namespace() %}{% set n._x = 1 %}", "what the sandbox forbids"),
        ("{{ messages.append(1) }}", "what the sandbox forbids"),
    ],
)
def test_a_bad_file(tmp_path: Path, source: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        render(write(tmp_path, source), TALKS["single"])


INCLUDES = """{#- tunewright
include = ["macros.jinja"]
-#}
{%- for message in messages %}
    {%- generation %}{{ answer(message) }}{% endgeneration %}
{%- endfor %}"""


def test_options_of_a_files_own(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    head = """{#- tunewright
[options.mark]
default = "!"
description = "After each message."
[options.loud]
default = false
description = "Twice."
-#}
"""
    body = "{%- for message in messages %}{{- message.content + mark + (mark if loud else '') }}"
    path.write_text(head + body + "{%- endfor %}")
    made = from_file(path)
    plain = made(made.Options(), "own")
    assert render(plain, talk(user("Hi"))).text == "Hi!"
    other = made(made.Options(mark='"', loud=True), "own")
    assert render(other, talk(user("Hi"))).text == 'Hi""'
    assert made.Options.model_fields["loud"].description == (
        "Twice. Default: that of the recipe's checkpoint, else false."
    )
    with pytest.raises(ValueError, match="silent"):
        made.Options(silent=True)
    with pytest.raises(ValueError, match="loud"):
        made.Options(loud="very")


def test_shared_macros_are_included_by_name(tmp_path: Path) -> None:
    talk_with_thinking = talk(user("x"), assistant("4.", reasoning="2 and 2"))
    text = render(write(tmp_path, INCLUDES), talk_with_thinking).text
    assert text.endswith("<think>\n2 and 2\n</think>\n\n4.")


def test_a_file_beside_the_template_wins_over_a_shared_one(tmp_path: Path) -> None:
    macro = "{%- macro answer(message) %}{{- '<' + message['content'] + '>' }}{%- endmacro -%}"
    (tmp_path / "macros.jinja").write_text(macro)
    assert render(write(tmp_path, INCLUDES), TALKS["single"]).text.startswith("<How are you?>")


def test_an_included_file_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "calls.jinja").write_text("")
    with pytest.raises(RecipeError) as error:
        write(tmp_path, INCLUDES.replace("macros", "macro"))
    assert str(error.value) == (
        f"{tmp_path / 'mine.jinja'}: there is no file 'macro.jinja' to include "
        "(there is: calls.jinja, macros.jinja, parts.jinja)"
    )


def test_templates_cannot_see_the_place_of_a_message(tmp_path: Path) -> None:
    made = write(tmp_path, "[{{ messages[0]._place }}{{ messages | tojson }}]")
    assert render(made, TALKS["single"]).text.startswith(
        '[[{"role": "user", "content": "How are you?"}'
    )
