"""Hostile config.json and tokenizers: nothing of theirs runs, and the message says what helps."""

import json
from pathlib import Path
from typing import Any

import pytest
from loading_setup import edit_json, load, said

from tunewright import RunError
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.safety import sanitised

# ---- 7, 8, 9: config.json ------------------------------------------------------------------------


def add_own_code(checkpoint: Path, marker: Path) -> None:
    code = f"open({str(marker)!r}, 'w').close()\n"
    config = (
        "from transformers import Qwen3Config\nclass EvilConfig(Qwen3Config):\n    "
        "model_type = 'evil'\n"
    )
    model = (
        "from transformers import Qwen3ForCausalLM\nfrom .configuration_evil import EvilConfig\n"
        "class EvilModel(Qwen3ForCausalLM):\n    config_class = EvilConfig\n"
    )
    (checkpoint / "configuration_evil.py").write_text(code + config)
    (checkpoint / "modeling_evil.py").write_text(code + model)
    names = {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModelForCausalLM": "modeling_evil.EvilModel",
    }
    edit_json(checkpoint / "config.json", auto_map=names)


def test_own_code_does_not_run(run: FakeRun, checkpoint: Path, marker: Path) -> None:
    add_own_code(checkpoint, marker)
    loaded = load(run, str(checkpoint))
    assert type(loaded.model).__module__.startswith("transformers.")
    assert "auto_map" in said(run)
    assert not marker.exists()


@pytest.mark.usefixtures("modules_of_checkpoints")
def test_own_code_runs_where_it_is_trusted(run: FakeRun, checkpoint: Path, marker: Path) -> None:
    add_own_code(checkpoint, marker)
    edit_json(checkpoint / "config.json", model_type="evil")
    loaded = load(run, str(checkpoint), trust_remote_code=True)
    assert type(loaded.model).__name__ == "EvilModel"
    assert marker.exists()


def test_unknown_architecture_says_what_helps(run: FakeRun, checkpoint: Path, marker: Path) -> None:
    add_own_code(checkpoint, marker)
    edit_json(checkpoint / "config.json", model_type="evil")
    with pytest.raises(RunError, match="knows no model_type 'evil'") as caught:
        load(run, str(checkpoint))
    assert "--trust-remote-code" in caught.value.hint
    assert not marker.exists()


def test_trust_in_config_is_ignored(run: FakeRun, checkpoint: Path, marker: Path) -> None:
    add_own_code(checkpoint, marker)
    edit_json(
        checkpoint / "config.json",
        trust_remote_code=True,
        extra={"trust_remote_code": True, "list": [{"auto_map": 1}]},
    )
    load(run, str(checkpoint))
    for name in ("trust_remote_code", "extra.trust_remote_code", "extra.list.auto_map"):
        assert name in said(run)
    assert not marker.exists()


@pytest.mark.parametrize(
    "key",
    [
        "_attn_implementation_internal",
        "_attn_implementation",
        "attn_implementation",
        "_experts_implementation_internal",
    ],
)
def test_attention_code_is_ignored(run: FakeRun, checkpoint: Path, key: str) -> None:
    edit_json(checkpoint / "config.json", **{key: "evil/kernel"})
    loaded = load(run, str(checkpoint))
    assert key in said(run)
    assert loaded.model.config._attn_implementation == "sdpa"
    assert "evil" not in json.dumps(loaded.model.config.to_dict())


def test_sanitising_keeps_the_rest() -> None:
    config = {
        "model_type": "a",
        "attention_bias": True,
        "vision": {"implementation": 1, "auto_map": {}},
        "x": [1, "a"],
    }
    kept, dropped = sanitised(config)
    assert kept == {
        "model_type": "a",
        "attention_bias": True,
        "vision": {"implementation": 1},
        "x": [1, "a"],
    }
    assert dropped == ["vision.auto_map"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": "two"}, "field 'num_hidden_layers': TypeError: Field"),
        ({"text_config": {"trust_remote_code": True}}, "has a part that no qwen3 has"),
        ({"rope_parameters": {"rope_type": 5}}, "describes no model"),
        ({"hidden_act": "evil"}, "describes no model"),
        ({"output_attentions": 1.5}, "validate_output_attentions"),
        ({"attribute_map": 1.5}, "is no config of qwen3"),
        ({"vocab_size": {"__float__": "x"}}, "field 'vocab_size': TypeError"),
    ],
)
def test_strange_values_of_config(
    run: FakeRun, checkpoint: Path, change: dict[str, Any], problem: str
) -> None:
    edit_json(checkpoint / "config.json", **change)
    with pytest.raises(RunError) as caught:
        load(run, str(checkpoint))
    assert problem in str(caught.value)
    assert "config.json" in caught.value.place
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"temperature": "hot"}', '{"eos_token_id": {}}'])
def test_broken_generation_config(run: FakeRun, checkpoint: Path, content: str) -> None:
    """Found at load: the result of a training could not be saved with it."""
    (checkpoint / "generation_config.json").write_text(content)
    with pytest.raises(RunError) as caught:
        load(run, str(checkpoint))
    assert "generation_config.json" in caught.value.place
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"chat_template": 5},
        {"chat_template": [{"name": "default"}]},
        {"eos_token": 5},
        {"added_tokens_decoder": "x"},
        {"padding_side": "up"},
        {"clean_up_tokenization_spaces": "\ud800"},
    ],
)
def test_strange_values_of_tokenizer_config(
    run: FakeRun, checkpoint: Path, change: dict[str, Any]
) -> None:
    edit_json(checkpoint / "tokenizer_config.json", **change)
    with pytest.raises(RunError) as caught:
        load(run, str(checkpoint))
    assert str(checkpoint) in caught.value.place
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"model_type": ["qwen3"]}', '{"model_type": null}', "[" * 100_000]
)
def test_broken_config(run: FakeRun, checkpoint: Path, content: str) -> None:
    (checkpoint / "config.json").write_text(content)
    with pytest.raises(RunError) as caught:
        load(run, str(checkpoint))
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit(run: FakeRun, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", hidden_size=128)
    with pytest.raises(
        RunError, match=r"weight is \[.*64.*\] in the weights, \[.*128.*\] by config"
    ):
        load(run, str(checkpoint))


# ---- 10: tokenizers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"auto_map": {"AutoTokenizer": ["tok.Evil", None]}}, "names code of its own"),
        ({"tokenizer_class": "EvilTokenizer"}, "knows no tokenizer class 'EvilTokenizer'"),
        ({"tokenizer_class": "Trainer"}, "knows no tokenizer class 'Trainer'"),
        ({"tokenizer_class": ["a"]}, "knows no tokenizer class"),
    ],
)
def test_strange_tokenizer_is_refused(
    run: FakeRun, checkpoint: Path, change: dict[str, Any], problem: str
) -> None:
    edit_json(checkpoint / "tokenizer_config.json", **change)
    with pytest.raises(RunError, match=problem) as caught:
        load(run, str(checkpoint))
    assert "--trust-remote-code" in caught.value.hint


def test_tokenizer_class_of_config(run: FakeRun, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", tokenizer_class="EvilTokenizer")
    with pytest.raises(RunError, match="knows no tokenizer class 'EvilTokenizer'"):
        load(run, str(checkpoint))


@pytest.mark.parametrize("content", ["{", '{"model": 1}', ""])
def test_broken_tokenizer(run: FakeRun, checkpoint: Path, content: str) -> None:
    (checkpoint / "tokenizer.json").write_text(content)
    with pytest.raises(RunError, match=r"tokenizer\.json: ") as caught:
        load(run, str(checkpoint))
    assert "\n" not in str(caught.value)


def test_the_folder_is_only_read(run: FakeRun, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", auto_map={"AutoConfig": "a.B"})
    before = {path: path.read_bytes() for path in checkpoint.rglob("*")}
    load(run, str(checkpoint))
    assert {path: path.read_bytes() for path in checkpoint.rglob("*")} == before
