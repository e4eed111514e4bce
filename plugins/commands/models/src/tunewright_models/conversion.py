"""A checkpoint whose weights are pickles becomes one with safetensors."""

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import RunError
from tunewright_hf.checkpoints.folder import write_folder
from tunewright_hf.models import hub, safety

_ENVIRONMENT = ("PATH", "SYSTEMROOT", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
_LEAST_SECONDS = 60  # of processor time
_SPEED = 20 * 10**6  # bytes a second that are always enough
_COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py", "*.md", "LICENSE*")
_LARGEST_TEXT = 2**27  # bytes


@dataclass(frozen=True)
class Converted:
    folder: Path
    tensors: int
    files: int
    isolation: str  # how the process that read the pickles was kept from the network


def convert(model: str, revision: str | None, to: Path) -> Converted:
    """Write the checkpoint `model`, a folder or a hub id, to the folder `to` with safetensors.

    Pickles are read in a process of its own without network. Config, tokenizer and code are copied,
    pickles are not. Raises RunError: nothing to convert, links out of the folder, files that hold
    anything else than tensors, limits, `to` is there already.
    """
    if to.exists() or to.is_symlink():
        raise RunError("is there already", place=str(to), hint="name a new folder with --to")
    folder = hub.locate(model, revision, weights=False, pickles=True)
    name, sources = _sources(folder)
    made: dict[str, Any] = {}

    def write(temporary: Path) -> None:
        made.update(_run(sources, temporary, folder))
        _name(temporary, name, made["files"])
        safety.check_weights(temporary, name)
        for path in sorted({each for pattern in _COPIED for each in folder.glob(pattern)}):
            if not path.name.startswith(("pytorch_model.bin.", "model.safetensors.")):
                shutil.copyfile(_checked(path, folder, _LARGEST_TEXT), temporary / path.name)

    write_folder(to, write)
    count = sum(map(len, made["files"].values()))
    isolation = made["isolation"] + ("" if made["limited"] else ", without a limit on memory")
    return Converted(to, count, len(made["files"]), isolation)


def _sources(folder: Path) -> tuple[str, list[Path]]:
    """model or adapter_model, and the pickles of its weights. Raises RunError."""
    for name, pickled in (("model", "pytorch_model"), ("adapter_model", "adapter_model")):
        ready = [f"{name}.safetensors", f"{name}.safetensors.index.json"]
        if any((folder / each).exists() for each in ready):
            raise RunError("has safetensors already", place=str(folder), hint="train it as it is")
        index, single = folder / f"{pickled}.bin.index.json", folder / f"{pickled}.bin"
        if index.exists():
            return name, [_checked(path, folder) for path in _shards(index)]
        if single.exists() or single.is_symlink():
            return name, [_checked(single, folder)]
    raise RunError(
        "holds no pytorch_model.bin, no index of it, and no adapter_model.bin", place=str(folder)
    )


def _shards(index: Path) -> list[Path]:
    found = hub.read_json(_checked(index, index.parent, _LARGEST_TEXT)).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise RunError("has no weight_map", place=str(index))
    names = sorted({str(each) for each in found.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".bin"):
            raise RunError(
                f"names {name!r:.100}, which is no .bin file beside it", place=str(index)
            )
    return [index.parent / name for name in names]


def _checked(path: Path, folder: Path, largest: int | None = None) -> Path:
    """The file behind a path: a plain one, in the folder, or among the blobs of the hub's cache to
    which its folders link. Raises RunError."""
    roots = [folder.resolve()]
    if roots[0].parent.name == "snapshots":
        roots.append(roots[0].parents[1] / "blobs")
    try:
        real = path.resolve(strict=True)
        found = real.stat()
    except (OSError, RuntimeError) as error:
        raise RunError(
            "cannot be read: it is missing, or a link to nothing", place=str(path)
        ) from error
    if not any(real.is_relative_to(root) for root in roots):
        raise RunError("is a link out of its folder", place=str(path), hint="copy the file there")
    if not stat.S_ISREG(found.st_mode):
        raise RunError("is no plain file", place=str(path))
    if largest is not None and found.st_size > largest:
        raise RunError(f"has {found.st_size:,} bytes, more than {largest:,}", place=str(path))
    return real


def _run(sources: list[Path], target: Path, folder: Path) -> dict[str, Any]:
    """The worker's answer. Raises RunError."""
    seconds = _LEAST_SECONDS + sum(path.stat().st_size for path in sources) // _SPEED
    asked = {"sources": [str(path) for path in sources], "folder": str(target.resolve())}
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    hint = "the file is damaged, or was made to do harm: do not use it"
    try:
        done = subprocess.run(
            # -P: the current folder is no place to import from
            [sys.executable, "-P", "-m", "tunewright_models.pickle_worker"],
            input=json.dumps(asked | {"seconds": seconds}).encode(),
            capture_output=True,
            timeout=5 * seconds,
            env=environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"is not read in {5 * seconds} s", place=str(folder), hint=hint) from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        problem = f"the process that read it ended with code {done.returncode}: it took too much "
        problem += f"memory, or more than {seconds} s of processor time"
        raise RunError(problem, place=str(folder), hint=hint) from None
    if "No space left" in answer.get("problem", ""):
        raise RunError("cannot be written: no space left", place=str(target.parent))
    if "problem" in answer:
        raise RunError(f"cannot be converted: {answer['problem']}", place=str(folder), hint=hint)
    return answer


def _name(folder: Path, name: str, files: dict[str, list[str]]) -> None:
    """Give the parts the names that transformers looks for, and write the index. files: part → the
    names of its tensors."""
    if len(files) == 1:
        (part,) = files
        (folder / part).rename(folder / f"{name}.safetensors")
        return
    weight_map: dict[str, str] = {}
    size = 0
    for number, (part, tensors) in enumerate(files.items(), 1):
        called = f"{name}-{number:05}-of-{len(files):05}.safetensors"
        (folder / part).rename(folder / called)
        weight_map |= dict.fromkeys(tensors, called)
        size += (folder / called).stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index, indent=1))
