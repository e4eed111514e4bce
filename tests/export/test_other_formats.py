"""Exports for llama.cpp and sentence-transformers."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from export.exporting import export, report
from tunewright import RecipeError, RunError

#: writes what llama.cpp's script writes of a Qwen3 model, whatever its tokenizer
STAND_IN = """
import argparse, json, pathlib, sys
import gguf
from safetensors.numpy import load_file
from tokenizers import Tokenizer

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--outfile")
parser.add_argument("--outtype")
asked = parser.parse_args()
config = json.loads((asked.model / "config.json").read_text())
tokenizer = Tokenizer.from_file(str(asked.model / "tokenizer.json"))
count = tokenizer.get_vocab_size()
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
file = gguf.GGUFWriter(asked.outfile, "qwen3")
file.add_block_count(config["num_hidden_layers"])
file.add_context_length(config["max_position_embeddings"])
file.add_embedding_length(config["hidden_size"])
file.add_feed_forward_length(config["intermediate_size"])
file.add_head_count(config["num_attention_heads"])
file.add_head_count_kv(config["num_key_value_heads"])
file.add_key_length(config["head_dim"])
file.add_value_length(config["head_dim"])
file.add_layer_norm_rms_eps(config["rms_norm_eps"])
file.add_rope_freq_base(10000.0)
file.add_tokenizer_model("gpt2")
file.add_token_list([tokenizer.id_to_token(id) for id in range(count)])
file.add_eos_token_id(tokenizer.token_to_id("<|im_end|>"))
file.add_chat_template((asked.model / "chat_template.jinja").read_text())
for name, tensor in load_file(asked.model / "model.safetensors").items():
    EDIT
    file.add_tensor(names.get_name(name, (".weight", ".bias")), tensor)
file.write_header_to_file()
file.write_kv_data_to_file()
file.write_tensors_to_file()
file.close()
"""
#: the script of a checkout, which knows no tokenizer of a tiny twin
REAL = """
import sys
sys.path[:0] = ["CHECKOUT", "CHECKOUT/gguf-py"]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""


def checkout(folder: Path, script: str) -> Path:
    """A folder that looks like llama.cpp's."""
    folder.mkdir()
    (folder / "convert_hf_to_gguf.py").write_text(script)
    return folder


def stand_in(folder: Path, edit: str = "pass") -> Path:
    return checkout(folder, STAND_IN.replace("EDIT", edit))


def test_gguf(lora: Path, tmp_path: Path) -> None:
    to, converter = tmp_path / "to", stand_in(tmp_path / "llama.cpp")
    done = export(lora, "--to", "gguf", "--output", to, f"converter={converter}", "type=f32")
    assert "tokens are the run's" in done.output
    assert "verified: logits differ by" in done.output
    assert report(to)["largest_difference"] < 1e-4
    fields = GGUFReader(to / "run.gguf").fields
    template = AutoTokenizer.from_pretrained(to).chat_template
    assert fields["tokenizer.chat_template"].contents() == template
    assert not list(to.glob("*.safetensors"))


@pytest.mark.skipif("TUNEWRIGHT_LLAMA_CPP" not in os.environ, reason="no checkout of llama.cpp")
@pytest.mark.parametrize("kind", ["f32", "bf16", "q8_0"])
def test_gguf_by_llama_cpp(lora: Path, full: Path, tmp_path: Path, kind: str) -> None:
    script = REAL.replace("CHECKOUT", os.environ["TUNEWRIGHT_LLAMA_CPP"])
    converter = checkout(tmp_path / "llama.cpp", script)
    to = tmp_path / "to"
    run = full if kind == "q8_0" else lora  # eight bits are too few for an adapter that loud
    done = export(run, "--to", "gguf", "--output", to, f"converter={converter}", f"type={kind}")
    assert "verified: logits differ by" in done.output


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("tensor = tensor * 1.5", "logits differ"),
        ("tensor = tensor[..., :16]", r"attn_norm.weight has shape .16., and .* has .64."),
        ("if 'up_proj' in name: continue", "ffn_up.weight is missing"),
        ("raise KeyError('a model of tomorrow')", "failed: KeyError: 'a model of tomorrow'"),
    ],
)
def test_a_wrong_file_does_not_appear(full: Path, tmp_path: Path, edit: str, message: str) -> None:
    converter = stand_in(tmp_path / "llama.cpp", edit)
    options = [f"converter={converter}", "type=f32"]
    with pytest.raises(RunError, match=message):
        export(full, "--to", "gguf", "--output", tmp_path / "to", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["llama.cpp"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('(asked.model / "chat_template.jinja").read_text()', '"{{ a }}"', "another chat template"),
        ('"<|im_end|>"))', '"a"))', "text ends with token"),
        ("id_to_token(id)", "id_to_token((id + 1) % count)", "token 0 is"),
    ],
)
def test_a_wrong_vocabulary_is_found(
    full: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    script = STAND_IN.replace("EDIT", "pass").replace(old, new)
    converter = checkout(tmp_path / "llama.cpp", script)
    with pytest.raises(RunError, match=message):
        export(full, "--to", "gguf", "--output", tmp_path / "to", f"converter={converter}")


def test_a_folder_without_the_script(full: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no convert_hf_to_gguf"):
        export(full, "--to", "gguf", "--output", tmp_path / "to", f"converter={tmp_path}")
    with pytest.raises(RecipeError, match="converter"):
        export(full, "--to", "gguf", "--output", tmp_path / "to")


@pytest.mark.parametrize("pooling", ["lasttoken", "mean"])
def test_embeddings(lora: Path, merged: Path, tmp_path: Path, pooling: str) -> None:
    to, texts = tmp_path / "to", ["Good morning.", "Rain", "A longer text than the others."]
    options = [f"pooling={pooling}", f"normalize={pooling == 'mean'}"]
    done = export(lora, "--to", "sentence_transformers", "--output", to, *options)
    assert "embeddings of 64 numbers differ by" in done.output
    assert "verified" in done.output
    found = SentenceTransformer(str(to), device="cpu").encode(texts, convert_to_tensor=True)
    tokenizer, model = AutoTokenizer.from_pretrained(merged), AutoModel.from_pretrained(merged)
    for text, each in zip(texts, found, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected = hidden[-1] if pooling == "lasttoken" else hidden.mean(0) / hidden.mean(0).norm()
        assert torch.allclose(each, expected, atol=1e-4)


def test_other_embeddings_do_not_appear(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = SentenceTransformer.encode
    monkeypatch.setattr(SentenceTransformer, "encode", lambda *a, **k: own(*a, **k) * 1.01)
    with pytest.raises(RunError, match="embeddings differ from the run's"):
        export(full, "--to", "sentence_transformers", "--output", tmp_path / "to")
    assert not list(tmp_path.iterdir())


def test_a_library_that_is_missing(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: list[Any] = ["--output", tmp_path / "to"]
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(RecipeError, match=r"tunewright-exporters\[sentence-transformers\]"):
        export(full, "--to", "sentence_transformers", *arguments)
