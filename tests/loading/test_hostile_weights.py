"""Hostile weights: the outcome, that nothing of theirs was opened or ran, and what the message
says."""

import importlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from loading_setup import edit_json, load, said
from opened import no_pickle_is_opened

from tunewright import RunError
from tunewright.types import AdapterRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.safety import check_safetensors
from tunewright_lora import Lora


def hostile_pickle(marker: Path) -> bytes:
    """A pickle that makes the file `marker` when it is read."""
    return f"cbuiltins\nopen\n(S'{marker}'\nS'w'\ntR.".encode()


def test_the_hostile_pickle_is_one(marker: Path) -> None:
    importlib.import_module("pickle").loads(hostile_pickle(marker)).close()
    assert marker.exists()


# ---- 1, 2, 4, 5: pickle weights ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickle_weights_are_refused(
    run: FakeRun, checkpoint: Path, marker: Path, name: str
) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(hostile_pickle(marker))
    with (
        no_pickle_is_opened(),
        pytest.raises(RunError, match="pickle weights are not loaded") as caught,
    ):
        load(run, str(checkpoint))
    assert name in str(caught.value)
    assert "convert" in caught.value.hint
    assert not marker.exists()


def test_no_fallback_from_broken_safetensors(run: FakeRun, checkpoint: Path, marker: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (checkpoint / "pytorch_model.bin").write_bytes(hostile_pickle(marker))
    with (
        no_pickle_is_opened(),
        pytest.raises(RunError, match=r"model\.safetensors: is no safetensors file"),
    ):
        load(run, str(checkpoint))
    assert not marker.exists()


def test_pickles_beside_safetensors_are_left_alone(
    run: FakeRun, checkpoint: Path, marker: Path
) -> None:
    for name in (
        "pytorch_model.bin",
        "value_head.bin",
        ".cache.mdl",
        "rng_state.pth",
        "adapter_model.bin",
    ):
        (checkpoint / name).write_bytes(hostile_pickle(marker))
    with no_pickle_is_opened():
        load(run, str(checkpoint))
    assert not marker.exists()


@pytest.mark.parametrize(
    "shard", ["evil.bin", "../evil.safetensors", "/evil.safetensors", "missing.safetensors"]
)
def test_index_names_only_files_beside_it(
    run: FakeRun, checkpoint: Path, marker: Path, shard: str
) -> None:
    """transformers hands whatever an index names to torch.load, unless it ends in .safetensors."""
    (checkpoint / "model.safetensors").rename(checkpoint.parent / "evil.safetensors")
    (checkpoint / "evil.bin").write_bytes(hostile_pickle(marker))
    index = {"metadata": {}, "weight_map": {"model.norm.weight": shard}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with no_pickle_is_opened(), pytest.raises(RunError, match=r"index\.json: names"):
        load(run, str(checkpoint))
    assert not marker.exists()


def test_config_cannot_name_the_weights(run: FakeRun, checkpoint: Path, marker: Path) -> None:
    """`transformers_weights: adapter_model.bin` in a config.json makes transformers call
    torch.load."""
    edit_json(checkpoint / "config.json", transformers_weights="adapter_model.bin")
    (checkpoint / "adapter_model.bin").write_bytes(hostile_pickle(marker))
    with no_pickle_is_opened():
        load(run, str(checkpoint))
    assert "transformers_weights" in said(run)
    assert not marker.exists()


def adapter_folder(run: FakeRun, folder: Path) -> Path:
    made = Lora(Lora.Options(rank=2)).apply_adapter(run, AdapterRequest(load(run)))
    made.model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def test_pickled_adapter_is_refused(run: FakeRun, tmp_path: Path, marker: Path) -> None:
    folder = adapter_folder(run, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(hostile_pickle(marker))
    with no_pickle_is_opened(), pytest.raises(RunError, match="pickle weights are not loaded"):
        Lora(Lora.Options()).apply_adapter(run, AdapterRequest(load(run), adapter_path=folder))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"init_lora_weights": "pissa"}, "belongs to weights that pissa changed"),
        (
            {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
            "uses megatron_config, megatron_core",
        ),
        ({"layer_replication": [[0, 2], [0, 2]]}, "uses layer_replication"),
        ({"peft_type": "BOFT"}, "type 'BOFT'"),
        ({"target_modules": ["down_proj"]}, "does not fit the model"),
        ({"target_modules": ["no_such"]}, "does not fit the model"),
        ({"r": 3}, "does not fit the model"),
    ],
)
def test_strange_adapter_is_refused(
    run: FakeRun, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    folder = adapter_folder(run, tmp_path / "adapter")
    edit_json(folder / "adapter_config.json", **change)
    with pytest.raises(RunError, match=problem):
        Lora(Lora.Options()).apply_adapter(run, AdapterRequest(load(run), adapter_path=folder))
    assert "antigravity" not in sys.modules


def test_adapter_in_place_of_a_model(run: FakeRun, checkpoint: Path) -> None:
    """transformers would load the base model from wherever adapter_config.json says."""
    (checkpoint / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "evil/repo", "peft_type": "LORA"}'
    )
    with pytest.raises(RunError, match="holds an adapter") as caught:
        load(run, str(checkpoint))
    assert "evil/repo" in caught.value.hint


# ---- 6: safetensors headers ----------------------------------------------------------------------


def safetensors(
    header: dict[str, Any] | bytes, data: bytes = b"\0" * 16, length: int | None = None
) -> bytes:
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(written) if length is None else length) + written + data


def tensor(
    start: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (2,)
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0",
        safetensors({}, length=2**63),
        safetensors({}, length=2**40),
        safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, b"\0" * 12),
        safetensors({"a": tensor(0, 8), "b": tensor(0, 8)}, b"\0" * 8),
        safetensors({"a": tensor(8, 16), "b": tensor(0, 16)}),
        safetensors({"a": tensor(0, 8, "F64")}, b"\0" * 8),
        safetensors({"a": tensor(0, 8, shape=(2**62, 4))}, b"\0" * 8),
        safetensors({"a": tensor(0, 8, shape=(-1,))}, b"\0" * 8),
        safetensors({"a": tensor(0, 8, "EVIL")}, b"\0" * 8),
        safetensors({"a": tensor(0, 2**60)}, b"\0" * 8),
        safetensors({"a": tensor(0, 16, shape=(4,))}, b"\0" * 15),
        safetensors({"a": tensor(0, 8)}, b"\0" * 9000),
        safetensors(
            b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": 1}', b"\0" * 8
        ),
        safetensors(b"[" * 100_000, b""),
        safetensors(b"\xff\xfe\xfd", b""),
        b"PK\x03\x04 a pickle that was renamed",
    ],
    ids=range(18),
)
def test_hostile_header(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"is no (sound )?safetensors file"):
        check_safetensors(path)


def test_endless_header(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(b"{" + b" " * 26 * 2**20 + b"}", b""))
    with pytest.raises(RunError, match="is no safetensors file"):
        check_safetensors(path)


def test_hostile_header_stops_the_load(run: FakeRun, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(safetensors({}, length=2**63))
    with pytest.raises(RunError, match="header of 9223372036854775808 bytes"):
        load(run, str(checkpoint))
