"""Reads PyTorch's pickles and writes safetensors: run by conversion.py as a process of its own.

The one place of Tunewright where a pickle is read. torch's restricted unpickler makes tensors and
plain containers, and nothing else; it has had holes (CVE-2025-32434, CVE-2026-24747), so before a
file is opened this process gives up the network, child processes and writing with Python's own
means, and limits its memory, its processor time and the size of files.
"""

import contextlib
import ctypes
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

MAX_SHARD = 5 * 10**9  # bytes of a file that is written
_SPARE = 2**30  # bytes of memory, besides what the files need
_COPIES = 3  # of the largest file that memory may hold: mapped, as tensors, and as they are written
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET
_CHILDREN = ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system")
_MAX_NAME = 1000  # characters


class Refused(Exception):
    """The file holds something other than tensors, or more than its size can hold."""


# ---- what this process may do --------------------------------------------------------------------


def without_network() -> str:
    """Leave the network, and refuse sockets and child processes. Returns how, in words."""
    sys.addaudithook(_refuse)
    unshare = (
        getattr(ctypes.CDLL(None, use_errno=True), "unshare", None) if os.name == "posix" else None
    )
    if (
        unshare is not None
    ):  # the first needs root; the second is what others may do, on most systems
        for flags in (_NEW_NETWORK, _NEW_USER | _NEW_NETWORK):
            if unshare(flags) == 0:
                return "in a network namespace with no network"
    return "with sockets refused"


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    writes = (
        event == "open"
        and len(arguments) > 1
        and isinstance(arguments[1], str)
        and set(arguments[1]) & set("wax+")
    )
    if event.startswith(("socket.", "subprocess.")) or event in _CHILDREN or writes:
        raise PermissionError(f"{event} is refused where pickles are read")


def limit(largest: int, total: int, seconds: int) -> bool:
    """Limit memory, processor time and files. largest, total: bytes of the input. False where the
    system cannot."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize() + _COPIES * largest + _SPARE
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * total + 2**26,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        return True
    return False


# ---- reading -------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name. Raises Refused, or what torch raises."""
    packed = zipfile.is_zipfile(path)
    if packed:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise Refused(f"{entry.filename:.100} is compressed, which torch never does")
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=packed)  # noqa: TID251
    if not isinstance(found, dict):
        raise Refused(f"holds a {type(found).__name__}, not a dict of tensors")
    storages: dict[int, int] = {}
    for name, tensor in found.items():
        _check(name, tensor)
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    held, described = sum(storages.values()), sum(each.nbytes for each in found.values())
    size = path.stat().st_size
    if held > size + 2**20 or described > 2 * size + 2**20:
        raise Refused(f"describes {described:,} bytes of tensors in a file of {size:,}")
    return {name: tensor.detach() for name, tensor in found.items()}


def _check(name: Any, tensor: Any) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or name == "__metadata__":
        raise Refused(f"has a tensor of the name {name!r:.100}")
    if not isinstance(tensor, torch.Tensor):
        raise Refused(f"{name:.100} is a {type(tensor).__name__}, not a tensor")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise Refused(f"{name:.100} is no plain tensor")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        held = tensor.untyped_storage().nbytes()
        raise Refused(f"{name:.100} is said to have {tensor.nbytes:,} bytes, and has {held:,}")


# ---- writing -------------------------------------------------------------------------------------


def write(sources: list[Path], folder: Path) -> dict[str, list[str]]:
    """Write part-1.safetensors and so on; returns the names of the tensors in each. A tensor that
    shares its memory with another, as tied ones do, is written like any other."""
    written: dict[str, list[str]] = {}
    known: set[str] = set()
    for source in sources:
        tensors = read(source)
        if twice := known & tensors.keys():
            raise Refused(f"{min(twice)} is in two files")
        known |= tensors.keys()
        for part in _parts(tensors):
            name = f"part-{len(written) + 1}.safetensors"
            save_file(part, folder / name, metadata={"format": "pt"})
            written[name] = list(part)
    return written


def _parts(tensors: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    part: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if part and size + tensor.nbytes > MAX_SHARD:
            yield _apart(part)
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    if part:
        yield _apart(part)


def _apart(part: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    seen: set[int] = set()
    made = {}
    for name, tensor in part.items():
        memory = tensor.untyped_storage().data_ptr()
        made[name] = tensor.clone() if memory in seen else tensor.contiguous()
        seen.add(memory)
    return made


def main() -> None:
    asked = json.load(sys.stdin)
    sources = [Path(each) for each in asked["sources"]]
    sizes = [each.stat().st_size for each in sources]
    answer: dict[str, Any] = {"isolation": without_network()}
    answer["limited"] = limit(max(sizes), sum(sizes), asked["seconds"])
    try:
        answer["files"] = write(sources, Path(asked["folder"]))
    except Refused as error:
        answer["problem"] = str(error)
    except Exception as error:  # torch raises whatever it meets in a stranger's file
        said = " ".join(str(error).split())
        answer["problem"] = f"{type(error).__name__}: {said[:300]}"
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
