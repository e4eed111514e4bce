"""`tunewright env doctor`: what works on this machine, and what to do about the rest."""

import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import __version__, compatibility, index
from tunewright.index import cache_folder

PROBE = Path(__file__).with_name("probe.py")
SECONDS = 120  # for the import of one library
GB = 10**9
SCARCE = 20 * GB  # free disk: one checkpoint of a small model, and its weights
TESTED = ((3, 11), (3, 13))  # first and last Python that the tests ran on

#: library → whether it is needed, and what it is for
LIBRARIES = {
    "torch": (True, "everything"),
    "transformers": (True, "models"),
    "accelerate": (True, "training"),
    "datasets": (True, "data"),
    "peft": (False, "lora and other adapters"),
    "torchvision": (False, "images and video"),
    "av": (False, "video and audio"),
    "bitsandbytes": (False, "4-bit and 8-bit weights and optimizers"),
    "flash_attn": (
        False,
        "the accelerator flash_attention; torch's own attention serves without it",
    ),
    "liger_kernel": (False, "the accelerator liger"),
    "deepspeed": (False, "the accelerator deepspeed"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    area: str
    state: str  # ok, note (works without), problem
    text: str
    remedy: str = ""


def findings(*, network: bool) -> Iterator[Finding]:
    """Examine this environment. network: whether the hub may be asked."""
    yield from python()
    yield from plugins()
    probed = probe(list(LIBRARIES))
    yield from devices(probed.get("torch", {}))
    for name, found in probed.items():
        yield library(name, found)
    yield from disks()
    yield from hub(network=network)


def python() -> Iterator[Finding]:
    version = sys.version_info[:2]
    shown = f"Python {sys.version.split()[0]} in {sys.prefix}"
    first, last = (".".join(map(str, each)) for each in TESTED)
    if TESTED[0] <= version <= TESTED[1]:
        yield Finding("python", "ok", shown)
    else:
        remedy = f"the tests of Tunewright run on {first} to {last}"
        yield Finding("python", "note", shown, remedy)


def plugins() -> Iterator[Finding]:
    count = len({point.distribution for point in index.points()})
    old = compatibility.outdated()
    yield Finding("tunewright", "ok", f"tunewright {__version__}, {count} distributions")
    if old:
        named = ", ".join(old[:4]) + (f" and {len(old) - 4} more" if len(old) > 4 else "")
        remedy = "tunewright plugins install --upgrade"
        yield Finding("tunewright", "problem", f"too old for this kernel: {named}", remedy)


def probe(names: list[str]) -> dict[str, dict[str, Any]]:
    """Import libraries in a process of its own. Returns what it says of each; `problem` is set for
    those that fail, end the process or hang."""
    found: dict[str, dict[str, Any]] = {}
    while waiting := [name for name in names if name not in found]:
        begun, ended = "", "ended the process"
        command = [sys.executable, str(PROBE), *waiting]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            timer = threading.Timer(SECONDS * len(waiting), process.kill)
            timer.start()
            assert process.stdout
            for line in process.stdout:
                said = _object(line)
                begun = said.get("begins", begun)
                if "name" in said:
                    found[said["name"]] = said
            timer.cancel()
        if process.returncode < 0:
            ended = f"was ended by signal {-process.returncode}"
        for name in {begun or waiting[0]} - found.keys():
            found[name] = {"name": name, "problem": f"the import {ended}"}
    return {name: found[name] for name in names}


def _object(line: str) -> dict[str, Any]:
    """A line of the probe; {} for what a library printed."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def devices(torch: dict[str, Any]) -> Iterator[Finding]:
    """The GPUs that torch sees, and why it sees none."""
    for number, each in enumerate(torch.get("devices", ())):
        memory = f"{each['free'] / GB:.0f} of {each['total'] / GB:.0f} GB free"
        text = f"GPU {number}: {each['name']}, capability {each['capability']}, {memory}"
        old = float(each["capability"]) < 8.0
        remedy = "no bfloat16 and no flash attention: training.precision=fp16" if old else ""
        yield Finding("gpu", "note" if old else "ok", text, remedy)
    if torch.get("devices") or "devices" not in torch:
        return
    if torch.get("mps"):
        yield Finding("gpu", "note", "Apple MPS", "it is not tested")
    elif not has_nvidia_device():
        yield Finding("gpu", "note", "none: training runs on the CPU", "tiny models only")
    elif not torch["cuda"]:
        remedy = "install torch with CUDA: see https://pytorch.org/get-started/locally"
        yield Finding("gpu", "problem", "there is a GPU, and this torch is for CPUs", remedy)
    else:
        text = f"there is a GPU, and torch for CUDA {torch['cuda']} does not see it"
        remedy = (
            "nvidia-smi shows the driver's CUDA: it must not be lower; in a container: --gpus all"
        )
        yield Finding("gpu", "problem", text, remedy)


def has_nvidia_device() -> bool:
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def library(name: str, found: dict[str, Any]) -> Finding:
    is_needed, use = LIBRARIES[name]
    pip_name = name.replace("_", "-")
    if "problem" not in found:
        return Finding("library", "ok", f"{name} {found.get('version', '')}".strip())
    if found.get("missing"):
        state = "problem" if is_needed else "note"
        return Finding("library", state, f"{name} is not installed", f"it is for {use}")
    remedy = f"pip install --force-reinstall {pip_name}, or uninstall it: it is for {use}"
    if name in ("torchvision", "flash_attn"):
        remedy = f"it is built for another torch; {remedy}"
    return Finding("library", "problem", f"{name} is broken: {found['problem']}", remedy)


def disks() -> Iterator[Finding]:
    """Free space where models, prepared data and runs are written."""
    hub_cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    for use, folder in (("models", hub_cache), ("caches", cache_folder()), ("runs", Path.cwd())):
        there = next(part for part in (folder, *folder.parents) if part.exists())
        free = shutil.disk_usage(there).free
        text = f"{use}: {free / GB:.0f} GB free in {folder}"
        if not os.access(there, os.W_OK):
            yield Finding("disk", "problem", f"{use}: {folder} cannot be written", "chmod, chown")
        elif free < SCARCE:
            yield Finding("disk", "note", text, "a model of 7 billion weights takes 15 GB")
        else:
            yield Finding("disk", "ok", text)
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not written
    if shared.exists() and (size := shutil.disk_usage(shared).total) < GB:
        remedy = "docker run --shm-size=8g, or training.dataloader_workers=0"
        yield Finding("disk", "note", f"shared memory: {size / GB:.2f} GB in {shared}", remedy)


def hub(*, network: bool) -> Iterator[Finding]:
    """Access to the hub: if it answers, and if there is a token, which is not shown."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    token = bool(os.environ.get("HF_TOKEN")) or (home / "token").is_file()
    said = "a token is set" if token else "no token is set"
    remedy = "" if token else "only gated and private models need one: HF_TOKEN"
    yield Finding("hub", "ok" if token else "note", said, remedy)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on") or not network:
        yield Finding("hub", "note", "not asked: offline", "models come from the cache or a folder")
        return
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not address.startswith(("https://", "http://")):
        yield Finding("hub", "problem", "HF_ENDPOINT is no address of the web", "unset HF_ENDPOINT")
        return
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:100]
        remedy = "HTTPS_PROXY, or a mirror in HF_ENDPOINT, or HF_HUB_OFFLINE=1"
        yield Finding("hub", "problem", f"{address} does not answer: {reason}", remedy)
        return
    yield Finding("hub", "ok", f"{address} answers")
