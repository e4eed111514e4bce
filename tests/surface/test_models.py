"""`tunewright models`: the checkpoints of the installed families."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tunewright import RecipeError, registry
from tunewright_models import app, listing
from tunewright_models.listing import as_text, checkpoints, select

ALL = checkpoints()


def models(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_family_lists_checkpoints_and_no_id_stands_twice() -> None:
    assert {each.family for each in ALL} == {entry.name for entry in registry.entries("family")}
    ids = [(each.family, each.id) for each in ALL]
    assert sorted(set(ids)) == sorted(ids)


def test_fields_are_those_that_people_can_use() -> None:
    templates = {entry.name for entry in registry.entries("template")}
    for each in ALL:
        assert each.id.count("/") == 1 and not each.id.startswith("/") and each.size, each
        assert each.kind in ("base", "chat"), each
        assert each.template in templates, each
        assert each.modelscope is None or each.modelscope.count("/") == 1, each


def test_json_says_all_of_a_checkpoint() -> None:
    (found,) = json.loads(models("Meta-Llama-3-8B-Instruct", "--json"))
    assert found == {
        "family": "llama",
        "line": "Llama 3",
        "id": "meta-llama/Meta-Llama-3-8B-Instruct",
        "modelscope": "LLM-Research/Meta-Llama-3-8B-Instruct",
        "size": "8B",
        "kind": "chat",
        "template": "llama3",
        "twin": "llama3",
        "license": "llama3",
        "remote_code": False,
        "template_options": {},
        "native": None,
    }


def test_options_of_the_template_are_told_and_long_ones_cut_off() -> None:
    assert "template mistral (spaces: true) · licence" in models("Mixtral-8x7B")
    assert 'template qwen (system: "You are a helpful assistant.")' in models("Qwen2-72B")
    small = models("Mistral-Small-24B-Instruct-2501")
    assert 'template mistral_small (system: "You are Mistral Small 3' in small and "…) ·" in small
    (found,) = json.loads(models("Mixtral-8x7B-Instruct", "--json"))
    assert found["template_options"] == {"spaces": True}


def test_lines_group_checkpoints_and_name_modelscope_where_it_differs() -> None:
    text = models("llama-3-8b")
    assert "Llama 3 · family llama · template llama3 · licence llama3\n" in text
    assert (
        "  meta-llama/Meta-Llama-3-8B           8B  base  ModelScope: "
        "LLM-Research/Meta-Llama-3-8B\n"
    ) in text
    assert "ModelScope" not in models("Qwen3-0.6B", "--kind", "chat")  # the same there
    assert "code from the hub: --trust-remote-code" in models("Baichuan2-13B-Chat")
    assert "template mimo · licence mit · native as qwen2" in models("MiMo-7B-RL-0530")


def test_filters_narrow_together() -> None:
    found = json.loads(models("qwen3-8b base", "--family", "qwen", "--kind", "base", "--json"))
    assert [each["id"] for each in found] == ["Qwen/Qwen3-8B-Base"]


@pytest.mark.parametrize(
    ("words", "family", "kind", "problem", "hint"),
    [
        (
            "Qwen3-0.6BB",
            None,
            None,
            "no checkpoint that fits 'Qwen3-0.6BB'",
            "the nearest: Qwen/Qwen3-0.6B",
        ),
        ("llma", None, None, "no checkpoint that fits 'llma'", "the nearest: llama"),
        (
            "llama",
            "qwen",
            "chat",
            "no checkpoint of family qwen of kind chat that fits 'llama'",
            "tunewright models",
        ),
        ("", "qwem", None, "no installed plugin gives the family 'qwem'", "did you mean 'qwen'?"),
    ],
)
def test_what_fits_nothing_is_an_error_that_helps(
    words: str, family: str | None, kind: str | None, problem: str, hint: str
) -> None:
    with pytest.raises(RecipeError) as error:
        select(ALL, words, family, kind)
    assert problem in str(error.value) and error.value.hint.startswith(hint)


def test_a_family_that_is_not_installed_is_named_with_its_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        registry,
        "entries",
        lambda kind: [SimpleNamespace(name="qwen", value="tunewright_qwen:Qwen")],
    )
    with pytest.raises(RecipeError) as error:
        select(listing.checkpoints(), "Llama", None, None)
    assert error.value.hint == "pip install tunewright-llama"


def test_a_family_without_the_file_lists_none_and_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/__init__.py").write_text("raise ImportError('imported')", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    stranger = SimpleNamespace(name="strange", value="strange.deep:Family")
    monkeypatch.setattr(registry, "entries", lambda kind: [stranger])
    assert listing.checkpoints() == []
    (tmp_path / "strange/checkpoints.toml").write_text(
        '[[line]]\nname = "Odd\\u001b[31m"\ntemplate = "auto"\nlicense = "mit"\n'
        'checkpoints = [{ id = "a/b", size = "1B", kind = "chat", license = "gpl" }]\n',
        "utf-8",
    )
    assert (
        as_text(listing.checkpoints())
        == "Odd␛[31m · family strange · template auto · licence gpl\n  a/b  1B  chat"
    )


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from tunewright_models.listing import checkpoints; checkpoints(); "
        "print([name for name in ('torch', 'transformers', 'tunewright_hf', "
        "'tunewright_qwen') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
