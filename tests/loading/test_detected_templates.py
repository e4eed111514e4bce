"""The template of a checkpoint that no list names: never another format than the one that the
checkpoint comes with."""

import tomllib
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loading_setup import load, said, save

from template_cases import render, talk, template, user
from tunewright import registry
from tunewright.recipe import Recipe
from tunewright_conformance.doubles import RECIPE, FakeRun
from tunewright_hf.models import listed, tiny

TRL = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # type: ignore[union-attr]
#: the model's own template → ours that says the same. A later revision of LFM2.5's also sees
#: pictures.
KNOWN = {
    "cohere": "cohere",
    "cohere2": "cohere2",
    "deepseek_r1_distill": "deepseekr1",
    "deepseekv3": "deepseekr1",
    "gemma": "gemma",
    "gemma3": "gemma3",
    "glm4moe": "glm4_moe",
    "gptoss": "gpt_oss",
    "lfm2": "lfm2",
    "lfm2_v2": "lfm2",
    "lfm2_2_5": "lfm2_5",
    "lfm2_2_5_v2": "lfm2_5",
    "lfm2_2_5_vl": "lfm2_5",
    "llama3": "llama3",
    "llama3_1": "llama3_1",
    "llama3_2": "llama3_1",
    "nemotron_3_nano": "nemotron_3_nano",
    "nemotron_3_super": "nemotron_3_nano",
    "phi3": "phi",
    "phi3_5": "phi",
    "qwen2_5": "qwen",
    "qwen3": "qwen3",
    "qwen3_5_think": "qwen3_5",
    "qwen3_5_nothink": "qwen3_5_nothink",
    "qwen3_6": "qwen3_6",
}
#: formats that are told by words which others may have too; what is found then renders the same
#: roles
ALIKE = {("llava_next", "llama2"), ("llava_next", "mistral")}
OWN = {
    file.stem: file.read_text()
    for file in TRL.glob("*.jinja")
    if not file.stem.endswith("_training")
}
FAMILIES = [entry.name for entry in registry.entries("family")]


def twins(name: str) -> tuple[Any, list[tuple[Any, str]]]:
    """The family, and for each of its twins the tokenizer and the template."""
    entry = registry.find("family", name)
    made: Any = registry.load(entry)
    file = resources.files(entry.value.partition(":")[0]) / "tiny.toml"
    tables = tomllib.loads(file.read_text("utf-8"))["twin"]
    return made(made.Options()), [
        (tiny.tokenizer(tiny.TinyModelSpec(**fields)), fields["template"]) for fields in tables
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_takes_a_foreign_template_for_one_of_ours(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the same for all, and slow
    monkeypatch.setattr("tunewright_hf.models.template_signs.exported", lambda *_: None)
    family, known = twins(name)
    for tokenizer, _ in known:
        for file, source in OWN.items():
            tokenizer.chat_template = source
            found = family.template_for("some/model", tokenizer).name
            assert found in ("auto", KNOWN.get(file)) or (file, found) in ALIKE, file


def test_every_known_one_is_told_by_some_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewright_hf.models.template_signs.exported", lambda *_: None)
    told = set()
    for name in (
        "cohere",
        "deepseek",
        "gemma",
        "chatglm",
        "gpt_oss",
        "lfm2",
        "llama",
        "nemotron",
        "phi",
        "qwen",
    ):
        family, known = twins(name)
        for tokenizer, _ in known:
            for file in KNOWN:
                tokenizer.chat_template = OWN[file]
                told |= (
                    {file}
                    if family.template_for("some/model", tokenizer).name == KNOWN[file]
                    else set()
                )
    assert told == KNOWN.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_what_was_trained_here_keeps_its_template(name: str) -> None:
    family, known = twins(name)
    asked = talk(user("Hi"))
    for tokenizer, trained in known:
        tokenizer.chat_template = template(trained).chat_template()
        told = family.template_for("some/model", tokenizer)
        assert (told.told, told.options) == (False, {})  # not by signs: the files are the same
        found = told.name
        assert found == trained or template(found).chat_template() == tokenizer.chat_template
        assert render(template(found), asked, prompt=True) == render(
            template(trained), asked, prompt=True
        )


def test_what_was_told_is_said(run: FakeRun, tmp_path: Path) -> None:
    loaded = load(run, twin="qwen2")
    loaded.tokenizer.chat_template = "{{ messages[0].content }}"
    folder = str(save(loaded, tmp_path))
    assert load(run, folder, twin="qwen2").template == "auto"
    assert "not a listed checkpoint: by its tokenizer, its template is auto" in said(run)


def test_for_a_recipe_that_names_a_template_no_other_is_read(
    run: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(run, twin="qwen2")
    loaded.tokenizer.chat_template = "{{ messages[0].content }}"
    folder, read = str(save(loaded, tmp_path)), []
    run.recipe = Recipe.model_validate({**RECIPE, "template": "chatml"})
    monkeypatch.setattr(
        "tunewright_hf.models.template_signs.exported_options",
        lambda made, own: read.append(made.file.stem),
    )
    found = load(run, folder, twin="qwen2")
    assert (found.template, found.template_options) == ("chatml", {})
    assert read == ["chatml"] and said(run) == ""


# ---- options that suit the checkpoint ------------------------------------------------------------


def options_of(name: str, own: str, named: str | None = None) -> Any:
    """What a family finds for a checkpoint with its first twin's tokens and this chat template."""
    family, known = twins(name)
    for tokenizer, _ in known:
        tokenizer.chat_template = own
        found = family.template_for("some/model", tokenizer, named)
        if found.name not in (None, "auto"):
            return found
    return found


@pytest.mark.parametrize("named", [None, "qwen"])
def test_what_was_exported_with_options_is_found_with_them(named: str | None) -> None:
    options = {"system": 'Say "no".\n字', "enable_thinking": False}
    found = options_of("qwen", template("qwen", **options).chat_template(), named)
    assert (found.name, found.options, found.told) == ("qwen", options, False)


def test_own_options_of_a_template_are_exported_too() -> None:
    found = options_of("mistral", template("mistral", spaces=True).chat_template())
    assert (found.name, found.options) == ("mistral", {"spaces": True})
    assert options_of("mistral", template("mistral").chat_template()).options == {}


QWEN2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.mark.parametrize("named", [None, "qwen"])
def test_qwen2s_own_template_tells_its_system_prompt(named: str | None) -> None:
    found = options_of("qwen", QWEN2, named)
    assert found.name == "qwen"
    assert found.options == {"system": "You are a helpful assistant."}


def test_options_are_of_the_template_that_the_recipe_names() -> None:
    found = options_of("qwen", QWEN2, "yi")
    assert (found.name, found.options) == ("yi", {})


@pytest.mark.parametrize(
    ("written", "system"),
    [
        (r"'It\'s Ministral.\nToday is {today}.'", "It's Ministral.\nToday is {today}."),
        ('"Ministral é"', "Ministral é"),
        ("'The date: ' + today", None),
    ],
)
def test_ministrals_own_template_holds_its_system_prompt(written: str, system: str | None) -> None:
    own = f"{{%- set default_system_message = {written} %}}[ARGS]"
    family, _ = twins("mistral")
    known = ["[INST]", "[SYSTEM_PROMPT]", "[ARGS]", "[THINK]"]
    tokenizer = SimpleNamespace(chat_template=own, get_vocab=lambda: dict.fromkeys(known, 0))
    found = family.template_for("some/model", tokenizer)
    assert found.name == "ministral3"
    assert found.options == ({"system": system} if system else {})


def test_a_closed_system_message_of_smollm3() -> None:
    own = "## Custom Instructions{}"
    assert options_of("smollm", own.format("Today Date: ")).options == {}
    assert options_of("smollm", own.format("")).options == {"closed_system": True}


def test_granite_3_3_is_told_from_3_0() -> None:
    own = "available_tools<|end_of_role|>{}"
    assert options_of("granite", own.format("")).options == {}
    found = options_of("granite", own.format("Knowledge Cutoff Date: April 2024."))
    listed_ = listed.find("ibm-granite/granite-3.3-8b-instruct")
    assert listed_ is not None and found.options == listed_.template_options


def test_glm_4_is_told_from_its_successor() -> None:
    own = "[gMASK]<sop>{}"
    assert options_of("chatglm", own.format("")).options == {}
    found = options_of("chatglm", own.format("ChatGLM"))
    listed_ = listed.find("THUDM/glm-4-9b-chat-hf")
    assert listed_ is not None and found.options == listed_.template_options
