"""The template of a checkpoint that no list names: never another format than the one that the
checkpoint comes with."""

import tomllib
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loading_setup import Listener, load, save

from template_cases import render, talk, template, user
from tunewright import registry
from tunewright_hf.models import tiny

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
    monkeypatch.setattr(
        "tunewright_hf.models.family._exported", lambda own, first: None
    )  # the same for all, and slow
    family, known = twins(name)
    for tokenizer, _ in known:
        for file, source in OWN.items():
            tokenizer.chat_template = source
            found, _ = family.template_for("some/model", tokenizer)
            assert found in ("auto", KNOWN.get(file)) or (file, found) in ALIKE, file


def test_every_known_one_is_told_by_some_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewright_hf.models.family._exported", lambda own, first: None)
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
                    if family.template_for("some/model", tokenizer)[0] == KNOWN[file]
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
        found, told = family.template_for("some/model", tokenizer)
        assert not told  # not by signs: the files are the same
        assert found == trained or template(found).chat_template() == tokenizer.chat_template
        assert render(template(found), asked, prompt=True) == render(
            template(trained), asked, prompt=True
        )


def test_what_was_told_is_said(run: Listener, tmp_path: Path) -> None:
    loaded = load(run, twin="qwen2")
    loaded.tokenizer.chat_template = "{{ messages[0].content }}"
    folder = str(save(loaded, tmp_path))
    assert load(run, folder, twin="qwen2").template == "auto"
    assert "not a listed checkpoint: by its tokenizer, its template is auto" in run.notices


def test_a_recipe_that_names_a_template_is_not_searched_for_one(
    run: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(run, twin="qwen2")
    loaded.tokenizer.chat_template = "{{ messages[0].content }}"
    folder = str(save(loaded, tmp_path))
    monkeypatch.setattr(run, "recipe", SimpleNamespace(template="chatml"))
    monkeypatch.setattr(
        "tunewright_hf.models.family._exported", lambda *_: pytest.fail("all templates were read")
    )
    assert load(run, folder, twin="qwen2").template is None
    assert run.notices == ""
