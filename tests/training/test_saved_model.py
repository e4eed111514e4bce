"""The model that a training saves: it talks as it was trained, and ends answers where they end."""

import json

import pytest
import torch
from small_setup import small
from training_setup import loaded, lora, model, tokenizer
from transformers import AutoModelForCausalLM

__all__ = ["small"]


def test_the_result_can_be_loaded_and_talks_as_it_was_trained(tmp_path):
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from tunewright_hf.models.export import save_result

    made = loaded(model())
    made.model.generation_config.temperature = (
        0.6  # without do_sample: transformers alone refuses to save it
    )
    template = SimpleNamespace(
        info=SimpleNamespace(stop=("w7", "not a token")), chat_template=lambda: "{{ messages }}"
    )
    save_result(made, tmp_path / "model", template)
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert all(
        torch.equal(each, dict(made.model.named_parameters())[n])
        for n, each in back.named_parameters()
    )
    assert back.generation_config.eos_token_id == [7, tokenizer().eos_token_id]
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == "{{ messages }}"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("adapter", [False, True])
def test_what_ends_answers_is_saved_beside_what_ended_them_before(tmp_path, adapter):
    """Plain transformers and vLLM read it from generation_config.json, and stop where we stop."""
    from types import SimpleNamespace

    from tunewright_hf.models.export import save_result
    from tunewright_hf.models.modules import base_model

    made = lora(model()) if adapter else loaded(model())
    base = base_model(made.model)
    base.generation_config.eos_token_id = [9, 7]
    base.generation_config.top_k = 20
    info = SimpleNamespace(stop=("w7", "w5"))
    template = SimpleNamespace(info=info, chat_template=lambda: None)
    save_result(made, tmp_path / "model", template)
    saved = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert saved["eos_token_id"] == [7, 5, tokenizer().eos_token_id, 9]
    assert saved["top_k"] == 20 and "_from_model_config" not in saved
    info.stop = ()  # of a template whose answers end with the tokenizer's EOS
    base.generation_config.eos_token_id = 9
    save_result(made, tmp_path / "other", template)
    saved = json.loads((tmp_path / "other/generation_config.json").read_text())
    assert saved["eos_token_id"] == [tokenizer().eos_token_id, 9]


def test_pretraining_leaves_stop_tokens_alone_and_saves_odd_settings(small):
    made = loaded(model())
    made.model.generation_config.eos_token_id = [2, 9]
    made.model.generation_config.top_p = 0.9
    _, result, _ = small(made, max_steps=1)
    back = AutoModelForCausalLM.from_pretrained(result.path).generation_config
    assert (back.eos_token_id, back.top_p, back.do_sample) == ([2, 9], 0.9, True)
