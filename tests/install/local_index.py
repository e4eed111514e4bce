"""A local index that needs no network, and environments that see nothing but torch and what pip
installs.

Our distributions are the real wheels. Those of other libraries hold the metadata of what is
installed here, so that pip resolves as it would with the real ones, and a .pth file that leads to a
folder of links to the library's files: installing one copies nothing, and a library that no
requirement names cannot be imported.
"""

import functools
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections import defaultdict
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SITE = Path(sysconfig.get_path("purelib"))


@functools.cache
def others() -> dict[str, metadata.Distribution]:
    """Installed distributions that are not ours, by name."""
    found = {canonicalize_name(each.name): each for each in metadata.distributions(path=[SITE])}
    return {name: each for name, each in found.items() if not name.startswith("tunewright")}


def closure(*names: str) -> set[str]:
    """Names of installed distributions that these need, and their own."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        need = waiting.pop()
        extras = [{"extra": extra} for extra in need.extras] or [{"extra": ""}]
        key = canonicalize_name(need.name)
        if (key, *sorted(need.extras)) in found:
            continue
        found.add((key, *sorted(need.extras)))
        for text in metadata.distribution(need.name).requires or []:
            inner = Requirement(text)
            if not inner.marker or any(inner.marker.evaluate(extra) for extra in extras):
                waiting.append(inner)
    return {key for key, *_ in found}


class Views:
    """Folders of links to the files of distributions, and wheels that lead to such folders."""

    def __init__(self) -> None:
        self.owners: dict[PurePosixPath, set[str]] = defaultdict(set)  # of each folder
        self.files: dict[str, list[PurePosixPath]] = {}
        for name, each in others().items():
            paths = [PurePosixPath(path) for path in each.files or []]
            kept = [p for p in paths if ".." not in p.parts and p.suffix not in (".pth", ".pyc")]
            self.files[name] = kept
            for path in kept:
                for folder in path.parents:
                    self.owners[folder].add(name)

    def write(self, name: str, folder: Path) -> None:
        """Link the files of a distribution below a folder: whole folders where it owns them."""
        for path in self.files[name]:
            shared = [p for p in reversed(path.parents) if self.owners[p] == {name}]
            part = shared[0] if shared else path
            link = folder / part
            if not link.is_symlink() and (SITE / part).exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(SITE / part)

    def wheel(self, name: str, index: Path, folder: Path) -> None:
        """Write the wheel of a distribution that leads to its links in `folder`."""
        self.write(name, folder)
        each = others()[name]
        stem = f"{name.replace('-', '_')}-{each.version}"
        info = f"{stem}.dist-info"
        held = {
            f"{info}/METADATA": each.read_text("METADATA") or "",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"links_of_{stem}.pth": f"{folder}\n",
        }
        if points := each.read_text("entry_points.txt"):
            held[f"{info}/entry_points.txt"] = points
        held[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*held, f"{info}/RECORD"])
        with zipfile.ZipFile(index / f"{stem}-py3-none-any.whl", "w") as archive:
            for path, text in held.items():
                archive.writestr(path, text)


class Place:
    """An environment that holds torch, and then what is installed."""

    def __init__(self, folder: Path, index: Path) -> None:
        self.folder, self.index = folder, index
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin/python"
        self.install("torch")

    def install(self, *words: str, tool: str = "uv") -> None:
        """Install from the local index only. tool: pip, or uv, which takes a tenth of the time."""
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_", "PYTHONPATH"))
        }
        start = [sys.executable, "-m"]
        if tool == "pip":
            env["PIP_CONFIG_FILE"] = os.devnull
            start += ["pip", "--python", str(self.python), "install", "--no-compile"]
        else:
            start += ["uv", "pip", "install", "--python", str(self.python), "--no-cache"]
            start += ["--no-config", "--offline"]
        options = ["--no-index", "--find-links", str(self.index), "--quiet"]
        command = [*start, *options, *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    def run(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run `tunewright` of this environment."""
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "TUNEWRIGHT_CACHE": str(self.folder / "cache")}
        env.pop("PYTHONPATH", None)
        command = [str(self.folder / "bin/tunewright"), *words]
        return subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
        )
