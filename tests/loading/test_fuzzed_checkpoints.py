"""Checkpoints whose JSON holds anything: what loads can be saved, and what does not is one line."""

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loading_setup import load, save

from tunewright import TunewrightError
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.export import save_result

NAMES = ("config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json")
INDEX = "model.safetensors.index.json"

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 5, 10**6, 2**40, 10**30]),
    st.floats(),
    st.sampled_from(["", "x", "auto", "\ud800", "\x00", "../x", "evil/repo", "x" * 500]),
    st.sampled_from([[], [1], ["x"], [[]], {}, {"a": 1}, {"type": "x"}, {"__float__": "x"}]).map(
        deepcopy
    ),
)
#: keys that the libraries read, beside those that the files have
KEYS = {
    "config.json": "text_config vision_config quantization_config rope_scaling num_labels id2label "
    "label2id dtype torch_dtype attribute_map layer_types sub_configs tokenizer_class decoder "
    "pruned_heads generation_config to_dict per_layer_config base_model_tp_plan encoder",
    "tokenizer_config.json": "chat_template added_tokens_decoder extra_special_tokens bos_token "
    "additional_special_tokens padding_side model_input_names fast tokenizer_file vocab merges "
    "tokenizer_object post_processor special_tokens_map add_bos_token image_token __type",
    "tokenizer.json": "padding truncation version",
    "generation_config.json": "eos_token_id temperature top_k max_new_tokens cache_implementation "
    "watermarking_config compile_config suppress_tokens stop_strings validate",
    INDEX: "metadata weight_map",
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of all values, but of the first three of a long table alone."""
    yield at
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items if len(items) < 100 else items[:3]:
        yield from places(item, (*at, key))


@st.composite
def changed(draw: st.DrawFn, content: dict[str, Any], name: str) -> Any:
    """The JSON with up to three values replaced, removed or added."""
    found = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            found[draw(st.sampled_from(KEYS[name].split()))] = draw(ODD)
            continue
        at = draw(st.sampled_from(list(places(found))))
        if not at:
            return draw(ODD)
        parent = reduce(lambda value, key: value[key], at[:-1], found)
        if draw(st.integers(0, 3)):
            parent[at[-1]] = draw(ODD)
        else:
            del parent[at[-1]]
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save(load(FakeRun()), tmp_path_factory.mktemp("fuzzed") / "original")
    weights = ["model.embed_tokens.weight", "model.norm.weight"]
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model.safetensors")}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", [*NAMES, INDEX])
def test_nothing_but_one_line_comes_out(original: Path, name: str, tmp_path: Path) -> None:
    content = json.loads((original / name).read_text())
    number = iter(range(10**6))

    @settings(
        max_examples=60,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(found=changed(content, name))
    def attempt(found: Any) -> None:
        folder = tmp_path / str(next(number))
        shutil.copytree(original, folder)
        if name == INDEX:  # which is read where there is no single file
            (folder / "model.safetensors").rename(folder / "other.safetensors")
        (folder / name).write_text(json.dumps(found))
        said = ""
        try:
            save_result(load(FakeRun(), str(folder)), tmp_path / f"{folder.name}-saved")
        except TunewrightError as error:
            said = str(error)
        assert "\n" not in said
        assert len(said) < 1500
        shutil.rmtree(folder)

    attempt()
