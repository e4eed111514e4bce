"""Values of a stranger's adapter_config.json: refused in one line that names file and field, before
PEFT sees them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, edit_json, load, logits, train

from tunewright import RunError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models import peft_config
from tunewright_hf.models.peft_fields import COMMON
from tunewright_lora import Lora

ENDLESS = "(.*)*(.*)*(.*)*(.*)*x$"
FIELDS = sorted({**COMMON, **Lora.config_fields})
PLUGIN = Lora(Lora.Options(rank=4))


@pytest.fixture
def folder(run: FakeRun, tmp_path: Path) -> Path:
    """A trained adapter."""
    loaded = apply(run, PLUGIN)
    train(loaded)
    loaded.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    return tmp_path / "adapter"


def restore(run: FakeRun, folder: Path, **request: Any) -> LoadedModel:
    return apply(run, PLUGIN, adapter_path=folder, trainable=False, **request)


def refused(run: FakeRun, folder: Path, **changes: Any) -> str:
    """The error for a file with these changes. It is one line."""
    edit_json(folder / "adapter_config.json", **changes)
    with pytest.raises(RunError) as caught:
        restore(run, folder)
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and len(line) < 600
    assert str(folder) in line
    return line


HOSTILE: list[tuple[str, Any]] = [
    *(("r", value) for value in ("8", None, 8.5, True, [8], {}, 0, -4, 1_000_000, 10**30)),
    *(("lora_alpha", value) for value in ("x", None, [], True, -1, 1e308, float("nan"))),
    ("lora_alpha", float("inf")),
    *(("lora_dropout", value) for value in ("x", None, 1, 1.5, -0.1, float("nan"), False, [0])),
    *(("target_modules", value) for value in (5, True, {"q_proj": 1}, [5], [""], ["q proj"], "")),
    *(("target_modules", value) for value in (["(.*)*x"], [None], [["q_proj"]], "(", "x" * 20_000)),
    *(("exclude_modules", value) for value in (5, [5], {"a": 1}, "(", ["a\nb"], "[z-a]")),
    *(("rank_pattern", value) for value in (5, [], {"q_proj": "x"}, {"q_proj": 0}, {"(": 1})),
    *(("rank_pattern", value) for value in ({"q_proj": 10**9}, {"": 4}, {"q_proj": None}, "q")),
    *(("alpha_pattern", value) for value in ({"q_proj": "x"}, {"*": 1}, 5, {"q_proj": 1e300})),
    *(("modules_to_save", value) for value in (5, "norm", [""], [5], ["(.*)*x"], [[]], {"a": 1})),
    *(("bias", value) for value in (5, "some", None, True, [], "All")),
    *(("layers_to_transform", value) for value in ("x", [1.5], -1, ["1"], {}, True, 10**20)),
    *(("layers_pattern", value) for value in (5, ["(.*)*x"], [5], "(a|a)*")),
    *(("target_parameters", value) for value in (5, "experts", [5], ["a b"], {})),
    *(("use_dora", value) for value in ("yes", 1, None, [])),
    *(("use_rslora", value) for value in ("false", 0, {})),
    *(("fan_in_fan_out", value) for value in ("x", 1, [])),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE, ids=lambda value: ascii(value)[:40])
def test_hostile_value(run: FakeRun, folder: Path, field: str, value: Any) -> None:
    line = refused(run, folder, **{field: value})
    assert f"adapter_config.json: {field}: " in line
    assert "expected" in line or "regular expression" in line


@pytest.mark.parametrize(
    "change",
    [
        {"layers_pattern": ["layers"]},  # without layers_to_transform
        {"target_modules": ".*q_proj", "modules_to_save": ["no_such"]},
        {"target_modules": ["no_such"]},
        {"target_modules": []},
        {"target_modules": ".*no_such"},
        {"target_parameters": ["no_such.weight"]},
        {"modules_to_save": ["model"]},
        {"rank_pattern": {"q_proj": 2}},
        {"layers_to_transform": [1]},
        {"peft_type": 5},
        {"peft_type": None},
        {"peft_type": ["LORA"]},
        {"peft_type": "LORA\u0000\u202e"},
        {"init_lora_weights": {"a": 1}},
        {"init_lora_weights": "corda\nx"},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"trainable_token_indices": [1, 2]},
        {"k" * 5_000: 1},
        {"\u202e\n": 1},
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_does_not_fit(run: FakeRun, folder: Path, change: dict[str, Any]) -> None:
    refused(run, folder, **change)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_modules", ENDLESS),
        ("exclude_modules", ENDLESS),
        ("rank_pattern", {ENDLESS: 4}),
        ("alpha_pattern", {"q_proj": 8, ENDLESS: 4}),
    ],
    ids=str,
)
def test_a_pattern_that_takes_for_ever(
    run: FakeRun, folder: Path, field: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_config, "_SECONDS", 0.5)
    begun = time.monotonic()
    line = refused(run, folder, **{field: value})
    assert f"{field}: takes more than 0.5 s to match as a regular expression" in line
    assert time.monotonic() - begun < 10


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**63, 10**400, 0.5, float("nan"), float("inf"), -1e308),
    *("", "x", "all-linear", "(", "\ud800", "\x00", "a" * 100_000, [], [[]], [None], [0], [1, "q"]),
    *(["q_proj"], ["q_proj"] * 60_000, {}, {"": 0}, {"q_proj": 2}, {"q_proj": []}, {"(": 4}),
    {"a": {"b": {}}},
]


@pytest.mark.parametrize("field", [*FIELDS, "peft_type", "init_lora_weights", "no_such_field"])
def test_odd_values_end_in_a_config_or_an_error(
    run: FakeRun, folder: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Valid values load, or do not fit: only RunErrors are raised."""
    found = peft_config.read_json(folder / "adapter_config.json")
    for value in ODD:
        monkeypatch.setattr(
            peft_config, "read_json", lambda path, value=value: found | {field: value}
        )
        request = AdapterRequest(load(run), adapter_path=folder, trainable=False)
        read = error_of(lambda request=request: peft_config.read(PLUGIN, request, "CAUSAL_LM"))
        assert read.isprintable() and len(read) < 600
        if not read:
            assert "\n" not in error_of(lambda request=request: PLUGIN.adapt(request))


def error_of(call: Callable[[], Any]) -> str:
    """The RunError that comes of it, or nothing. Any other exception fails the test."""
    try:
        call()
    except RunError as error:
        return str(error)
    return ""


# ---- what others write, and loads ----------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.(q|k|v|o|gate|up|down)_proj",
        r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj",
        r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)",
    ],
)
def test_a_pattern_that_is_meant_well(run: FakeRun, folder: Path, pattern: str) -> None:
    expected = logits(restore(run, folder))
    edit_json(folder / "adapter_config.json", target_modules=pattern)
    assert torch.equal(logits(restore(run, folder)), expected)


@pytest.mark.parametrize(
    "change",
    [
        {"rank_pattern": {r"layers\.[01]\..*q_proj": 4, "^model.layers.0.mlp.up_proj": 4}},
        {"alpha_pattern": {r"layers\.0\..*": 16, "q_proj": 2, r".*\.o_proj": 3}},
        {"alpha_pattern": {"q_proj": 2, r"layers\.0\..*": 16}},
        {"layers_to_transform": [0, 1], "layers_pattern": "layers"},
        {"layers_to_transform": [0, 1], "layers_pattern": ["layers"]},
        {"target_modules": "all-linear"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"lora_alpha": 7.5},
    ],
    ids=str,
)
def test_read_as_peft_reads_it(run: FakeRun, folder: Path, change: dict[str, Any]) -> None:
    from peft import PeftModel

    edit_json(folder / "adapter_config.json", **change)
    theirs = LoadedModel(PeftModel.from_pretrained(load(run).model, folder), None)
    assert torch.equal(logits(restore(run, folder)), logits(theirs))


def test_modules_that_are_named_and_not_in_the_file(run: FakeRun, folder: Path) -> None:
    """PEFT would keep the model's own weights and say nothing."""
    line = refused(run, folder, modules_to_save=["model.norm"])
    assert "does not fit the model: lacks base_model.model.model.norm.weight and 0 more" in line


def test_weights_of_another_tool(run: FakeRun, folder: Path) -> None:
    """`load_external` gives the adapter to use and to merge."""
    from peft import PeftModel

    theirs = LoadedModel(PeftModel.from_pretrained(load(run).model, folder), None)
    loaded = PLUGIN.load_external(load(run), folder)
    assert loaded.saves == "adapter" and loaded.trained == set()
    assert torch.equal(logits(loaded), logits(theirs))
    assert torch.allclose(logits(PLUGIN.merge(loaded)), logits(theirs), atol=1e-5)
    with pytest.raises(RunError, match=r"holds no adapter_model.safetensors"):
        PLUGIN.load_external(load(run), folder.parent)
