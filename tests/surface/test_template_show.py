"""`tunewright template show` on every installed template."""

import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner, Result

from tunewright import RecipeError, registry
from tunewright_template import app

EXAMPLES = ["simple", "multi", "system", "tools", "thinking"]
TEMPLATES = [entry.qualified for entry in registry.entries("template") if entry.name != "auto"]
DECLARED = {  # to write the prompt in another way once the answer is there
    entry.qualified
    for entry in registry.entries("template")
    if "test_prompt_is_a_prefix" in registry.load(entry).deviations
}


def show(*arguments: str) -> Result:
    parent = typer.Typer()
    parent.add_typer(app, name="template")
    return CliRunner().invoke(parent, ["template", "show", *arguments], catch_exceptions=False)


def test_templates_are_installed() -> None:
    assert TEMPLATES


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_answer_is_marked_and_the_question_is_not(template: str, example: str) -> None:
    text = show(template, "--example", example).stdout
    trained = re.findall("⟦(.*?)⟧", text, re.DOTALL)
    last = {"multi": "Rome.", "tools": "It rains in Oslo, at 4 degrees.", "thinking": "Five."}.get(
        example, "Paris."
    )
    assert last in trained[-1]
    assert not any("?" in span for span in trained)  # all questions are the user's
    assert "\nA reply ends with: " in text
    if example == "system":
        assert "Answer in one word." in text


def test_a_listed_checkpoint_is_shown_with_its_options() -> None:
    text = show("Qwen/Qwen2-7B-Instruct").stdout
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    assert '\nOption system: "You are a helpful assistant."\n' in text
    assert "[INST] What is the capital of France? [/INST]" in (
        show("mistralai/Mixtral-8x7B-Instruct-v0.1").stdout
    )


def test_the_options_of_a_template_are_described() -> None:
    text = show("mistral").stdout
    assert "\nOption spaces: Spaces before [INST]" in text
    assert "Default: that of the recipe's checkpoint, else false." in text
    assert "Option" not in show("chatml").stdout


def test_a_checkpoint_that_nobody_lists() -> None:
    with pytest.raises(RecipeError, match="command line: no installed family lists some/model"):
        show("some/model")


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_generation_prompt_is_where_the_answer_begins(template: str) -> None:
    def text(*arguments: str) -> str:
        return show(template, *arguments).stdout.rpartition("\n\nA reply ends with: ")[0]

    whole, prompt = text(), text("--generation-prompt")
    assert "⟦" not in prompt
    if template not in DECLARED:
        assert whole.partition("⟦")[0] == prompt


def test_an_unknown_template_is_an_error_that_helps() -> None:
    with pytest.raises(RecipeError, match="chatm1") as error:
        show("chatm1")
    assert "chatml" in error.value.hint


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys; from tunewright_template.show import show_example as show; "
        "show('chatml', 'tools', False); "
        "print('heavy:', [name for name in ('torch', 'transformers', 'tokenizers') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")
