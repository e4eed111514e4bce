"""Modelling code beside weights that does not run right, and what is said of it."""

from pathlib import Path

import pytest
import torch
from loading_setup import edit_json, load, said
from remote_code_setup import IDS, changed, logits, trusted, written

from tunewright import RunError
from tunewright_conformance.doubles import FakeRun

pytestmark = pytest.mark.usefixtures("modules_of_checkpoints")


@pytest.mark.parametrize(
    ("forward", "problem"),
    [
        ("self.cos = self.cos * float('nan')", "gives numbers that are not finite"),
        ("self.cos = self.cos * 0.5", "other numbers for the same tokens a second time"),
        ("position_ids = position_ids * x.shape[2]", "where padding follows"),
        ("raise KeyError('no such cache')", "through it: KeyError: 'no such cache'"),
    ],
    ids=["nan", "random", "padding", "raises"],
)
def test_code_that_does_not_run_right_is_refused(
    run: FakeRun, tmp_path: Path, forward: str, problem: str
) -> None:
    written(run, tmp_path)
    line = "        half = x.shape[-1] // 2\n"
    before = "        cos, sin = self.cos"
    changed(tmp_path, (before, f"        {forward}\n{before}"), (line, line))
    with pytest.raises(RunError) as caught:
        trusted(run, tmp_path)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "transformers" in caught.value.hint


def test_missing_package_is_named(run: FakeRun, tmp_path: Path) -> None:
    written(run, tmp_path)
    changed(tmp_path, ("import math\n", "import math\nimport no_such_package\n"))
    with pytest.raises(RunError, match="imports no_such_package, which is not here") as caught:
        trusted(run, tmp_path)
    assert caught.value.hint == "pip install no_such_package"


def test_untested_version_is_told(
    run: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(run, tmp_path)
    monkeypatch.setattr("tunewright_hf.models.legacy_code.TESTED", ("5.20", "5.21"))
    trusted(run, tmp_path)
    assert "was not tested with transformers" in said(run)


def test_code_on_a_native_model(run: FakeRun, tmp_path: Path) -> None:
    """Code that derives from a model of transformers keeps its caches and tied weights."""
    native = load(run, twin="llama2")
    native.model.save_pretrained(tmp_path)
    native.tokenizer.save_pretrained(tmp_path)
    edit_json(
        tmp_path / "config.json",
        model_type="derived",
        auto_map={
            "AutoConfig": "derived.DerivedConfig",
            "AutoModelForCausalLM": "derived.DerivedForCausalLM",
        },
    )
    (tmp_path / "derived.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class DerivedConfig(LlamaConfig):\n    model_type = 'derived'\n\n\n"
        "class DerivedForCausalLM(LlamaForCausalLM):\n    config_class = DerivedConfig\n"
    )
    loaded = trusted(run, tmp_path)
    assert torch.equal(logits(loaded.model), logits(native.model))
    settings = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
    found = loaded.model.generate(IDS, **settings)
    assert found.tolist() == native.model.generate(IDS, **settings).tolist()
