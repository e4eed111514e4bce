"""What strangers may put in the place of pickled weights does no harm where they are converted."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from convert.conftest import pickled
from tunewright import RunError
from tunewright_models import conversion
from tunewright_models.conversion import convert


class Evil:
    """Makes the file `marker` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def refused(folder: Path, to: Path, match: str) -> RunError:
    with pytest.raises(RunError, match=match) as caught:
        convert(str(folder), None, to)
    assert not to.exists() and "\n" not in str(caught.value)
    assert not [path.name for path in to.parent.iterdir() if to.name in path.name]
    return caught.value


# ---- attacks -------------------------------------------------------------------------------------


def in_a_list(marker: Path) -> Any:
    return [Evil(marker)]


def in_a_dict(marker: Path) -> Any:
    return {"a": torch.ones(2), "b": Evil(marker)}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin"])
@pytest.mark.parametrize("made", [in_a_list, in_a_dict])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(
    tmp_path: Path, to: Path, name: str, made: Any, zipped: bool
) -> None:
    folder, marker = tmp_path / "evil", tmp_path / "it_ran"
    folder.mkdir()
    pickled(made(marker), folder / name, _use_new_zipfile_serialization=zipped)
    refused(folder, to, "cannot be converted: UnpicklingError")
    assert not marker.exists()
    content = made(marker)
    plain = importlib.import_module("pickle").dumps(content)
    importlib.import_module("pickle").loads(plain)
    assert marker.exists()  # it is what it says


def test_no_fallback_beside_safetensors(checkpoint: Path, to: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"broken")
    refused(checkpoint, to, "has safetensors already")


def test_other_pickles_are_neither_opened_nor_copied(
    checkpoint: Path, to: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "it_ran"
    others = ["rng_state.pth", "optimizer.pt", "scheduler.pt", "training_args.bin"]
    others += [".cache.mdl", "dataset.pkl", "value_head.bin", "adapter_model.bin"]
    for name in others:
        pickled(Evil(marker), checkpoint / name)
    convert(str(checkpoint), None, to)
    assert not marker.exists()
    assert {path.name for path in to.iterdir()} & {*others, "pytorch_model.bin"} == set()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (torch.ones(3), "holds a Tensor, not a dict"),
        ({"a": {"b": torch.ones(2)}}, "a is a dict, not a tensor"),
        ({"a": 3}, "a is a int, not a tensor"),
        ({5: torch.ones(2)}, "of the name 5"),
        ({"__metadata__": torch.ones(2)}, "of the name '__metadata__'"),
        ({"a": torch.ones(2, 2).to_sparse()}, "a is no plain tensor"),
        ({"a": torch.ones(1).expand(2**40)}, "is said to have 4,398,046,511,104 bytes, and has 4"),
        (
            {f"a{number}": each for number, each in enumerate([torch.ones(2**16)] * 200)},
            "describes 52,428,800 bytes of tensors in a file of",
        ),
    ],
    ids=["tensor", "nested", "number", "name", "metadata", "sparse", "strides", "aliases"],
)
def test_what_is_no_dict_of_tensors(checkpoint: Path, to: Path, value: Any, problem: str) -> None:
    pickled(value, checkpoint / "pytorch_model.bin")
    refused(checkpoint, to, problem)


def rewritten(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> None:
    """Write the archive again; change: name, content → content."""
    with zipfile.ZipFile(path) as archive:
        parts = {each.filename: archive.read(each) for each in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))


def test_packed_bomb(checkpoint: Path, to: Path) -> None:
    path = checkpoint / "pytorch_model.bin"
    pickled({"a": torch.zeros(2**22)}, path)
    rewritten(path, lambda _, content: content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**17
    refused(checkpoint, to, "is compressed")


def test_storage_that_is_not_there(checkpoint: Path, to: Path) -> None:
    """The pickle says that a tensor has a million numbers, the archive has four."""
    path = checkpoint / "pytorch_model.bin"
    pickled({"a": torch.zeros(2**20)}, path)
    rewritten(path, lambda name, content: content[:16] if "/data/" in name else content)
    refused(checkpoint, to, "cannot be converted")


def test_cut_short(checkpoint: Path, to: Path) -> None:
    path = checkpoint / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:5000])
    refused(checkpoint, to, "cannot be converted")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit memory here")
def test_memory_is_limited(checkpoint: Path, to: Path) -> None:
    """A pickle of some bytes that asks for 8 GB: its legacy form says how large storages are."""
    path = checkpoint / "pytorch_model.bin"
    pickled({"a": torch.zeros(7)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"K\x07N") >= 1  # the storage's size, and the view that there is not
    path.write_bytes(content.replace(b"K\x07N", b"\x8a\x05\0\0\0\x80\0N"))
    refused(checkpoint, to, "cannot be converted: .*memory|took too much memory")


def test_time_is_limited(checkpoint: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_LEAST_SECONDS", 0)
    refused(checkpoint, to, "is not read in")


# ---- links and names -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tokenizer.model", "config.json"])
def test_links_out_of_the_folder(checkpoint: Path, to: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    inside = checkpoint / name
    shutil.move(inside, outside) if inside.exists() else outside.write_text("secret")
    inside.symlink_to(outside)
    refused(checkpoint, to, f"{name}: is a link out of its folder")


def test_links_of_the_hubs_cache(checkpoint: Path, to: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b/snapshots/0123"
    blobs = tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(checkpoint.iterdir()):
        shutil.move(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    convert(str(snapshot), None, to)
    assert not any(path.is_symlink() for path in to.iterdir())


def test_pipes(checkpoint: Path, to: Path) -> None:
    (checkpoint / "pytorch_model.bin").unlink()
    os.mkfifo(checkpoint / "pytorch_model.bin")
    refused(checkpoint, to, "is no plain file")


@pytest.mark.parametrize("shard", ["../evil.bin", "/evil.bin", "evil.safetensors", "missing.bin"])
def test_index_names_only_files_beside_it(checkpoint: Path, to: Path, shard: str) -> None:
    index = checkpoint / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    refused(checkpoint, to, "names|is missing, or a link to nothing")


def test_nothing_is_overwritten(checkpoint: Path, to: Path) -> None:
    to.mkdir()
    (to / "mine").write_text("x")
    with pytest.raises(RunError, match="is there already"):
        convert(str(checkpoint), None, to)
    assert (to / "mine").read_text() == "x"


# ---- the process that reads them -----------------------------------------------------------------

ATTEMPTS = """
import os, socket, subprocess, sys, urllib.request
from tunewright_models import pickle_worker
print(pickle_worker.without_network())
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2),
    lambda: os.system("true"),
    lambda: subprocess.run(["true"]),
    lambda: open(sys.argv[2], "w"),
    lambda: os.fork(),
):
    try:
        attempt()
        print("done")
    except PermissionError:
        print("refused")
if sys.platform == "linux":
    print([line.split(":")[0].strip() for line in open("/proc/self/net/dev") if ":" in line])
"""


def test_it_has_no_network_no_children_and_no_files(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, str(port), tmp_path / "file"],
            capture_output=True,
            text=True,
            check=True,
        )
    isolation, *attempts = done.stdout.splitlines()
    assert attempts[:5] == ["refused"] * 5
    if "namespace" in isolation:
        assert attempts[5] == "['lo']"


def test_it_knows_no_secrets(checkpoint: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    called = []
    run = subprocess.run
    monkeypatch.setattr(
        conversion.subprocess, "run", lambda *a, **k: called.append(k["env"]) or run(*a, **k)
    )
    convert(str(checkpoint), None, to)
    assert called and "HF_TOKEN" not in called[0]
