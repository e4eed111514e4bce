"""Build and check the wheel and the sdist of every member: `python scripts/build_dists.py OUT`.

All are built in one process (see scripts/build_members.py) from a copy that holds the files git
knows and the LICENSE. They are built twice, in different folders, and must be equal to the byte;
each wheel is checked, see `wheel_problems`, and equal to the wheel that its sdist makes.
OUT gets the files and SHA256SUMS. SOURCE_DATE_EPOCH: default: the time of the last commit.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Any

from flit_core import buildapi
from make_lists import members
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LICENSE = ROOT / "LICENSE"
SUMS = "SHA256SUMS"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 2
    started = time.monotonic()
    out = Path(arguments[0]).absolute()
    problems = build(out, members())
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    wheels = len(list(out.glob("*.whl")))
    print(f"{wheels} wheels and sdists in {out}: {len(problems)} problems", end=" ")
    print(f"({time.monotonic() - started:.0f} s)")
    return 1 if problems else 0


def build(out: Path, folders: list[Path]) -> list[str]:
    """Build the members in `folders` into `out`, which is emptied. Returns what is wrong."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", last_commit())
    if out.exists() and any(each.suffix not in (".whl", ".gz") for each in _content(out)):
        return [f"{out}: holds other files than wheels and sdists; choose another folder"]
    shutil.rmtree(out, ignore_errors=True)
    version = read_project(folders[0])["version"]
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        for name in ("first", "second"):  # different paths, so that none can be in the files
            staged = [stage(folder, Path(work, name)) for folder in folders]
            build_all(Path(work, f"{name}-out"), staged)
        first, second = Path(work, "first-out"), Path(work, "second-out")
        problems += differences(first, second)
        for folder, staged_folder in zip(folders, staged, strict=True):
            project = read_project(folder)
            wheel, sdist = files_of(project, first)
            problems += wheel_problems(wheel, project, staged_folder, version)
            problems += sdist_problems(sdist, wheel, Path(work))
        shutil.copytree(first, out)
    lines = [f"{digest(file)}  {file.name}\n" for file in sorted(out.iterdir())]
    (out / SUMS).write_text("".join(lines), "utf-8")
    return problems


def _content(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.name != SUMS]


def last_commit() -> str:
    """The time of the last commit, in seconds since 1970."""
    command = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit("error: not a checkout of git: set SOURCE_DATE_EPOCH, in seconds since 1970")
    return done.stdout.strip()


def read_project(folder: Path) -> dict[str, Any]:
    return dict(tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"])


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# ---- building ------------------------------------------------------------------------------------


def stage(folder: Path, target: Path) -> Path:
    """Copy a member's files that git does not ignore, and the licence. Returns the copy."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."]
    listed = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    names = listed.stdout.decode().split("\0") if not listed.returncode else []
    if not any(names):
        sys.exit(f"error: {folder}: git lists no files there")
    copy = target / read_project(folder)["name"]
    for name in filter(None, names):
        if (folder / name).is_file():  # not removed since the last commit
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, copy / name)
    shutil.copyfile(LICENSE, copy / LICENSE.name)
    return copy


def build_all(out: Path, folders: list[Path]) -> None:
    """Write the wheel and the sdist of each folder to `out`."""
    out.mkdir(parents=True)
    for folder in folders:
        with contextlib.chdir(folder):  # a build backend builds the current directory
            buildapi.build_wheel(str(out))
            buildapi.build_sdist(str(out))


def files_of(project: dict[str, Any], out: Path) -> tuple[Path, Path]:
    """The wheel and the sdist of a member."""
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    return out / f"{stem}-py3-none-any.whl", out / f"{stem}.tar.gz"


# ---- checks --------------------------------------------------------------------------------------


def differences(first: Path, second: Path) -> Iterator[str]:
    """Files of two builds that are not equal."""
    names = {file.name for folder in (first, second) for file in folder.iterdir()}
    for name in sorted(names):
        one, other = first / name, second / name
        if not (one.is_file() and other.is_file() and digest(one) == digest(other)):
            yield f"{name}: two builds differ"


def wheel_problems(
    wheel: Path, project: dict[str, Any], folder: Path, version: str
) -> Iterator[str]:
    """Check metadata, licence, entry points, and that every file of the package is in the wheel,
    and no other file."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    info = next(name for name in held if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
    source = folder / "src"
    wanted = {
        file.relative_to(source).as_posix(): file.read_bytes()
        for file in source.rglob("*")
        if file.is_file()
    }
    package = {name: data for name, data in held.items() if not name.startswith(f"{info}/")}
    for name in sorted(wanted.keys() | package.keys()):
        if wanted.get(name) != package.get(name):
            state = "missing" if name not in package else "is not the package's file"
            yield f"{wheel.name}: {name}: {state}"
    if held.get(f"{info}/licenses/{LICENSE.name}") != LICENSE.read_bytes():
        yield f"{wheel.name}: has no licence, or another one"
    metadata = message_from_string(held[f"{info}/METADATA"].decode())
    for problem in metadata_problems(metadata, project, version):
        yield f"{wheel.name}: {problem}"
    for group, points in project.get("entry-points", {}).items():
        for name, value in points.items():
            if not _is_found(group, value, set(held)):
                yield f"{wheel.name}: entry point {group}: {name}: no file for {value}"


def metadata_problems(metadata: Message, project: dict[str, Any], version: str) -> Iterator[str]:
    """Compare the metadata with pyproject.toml, and the version with the kernel's."""
    wanted = {
        "Name": project["name"],
        "Version": version,
        "Summary": project["description"],
        "Requires-Python": project["requires-python"],
        "License-Expression": project["license"],
        "License-File": LICENSE.name,
    }
    for field, value in wanted.items():
        if metadata[field] != value:
            yield f"{field} is {metadata[field]!r}, expected {value!r}"
    needs = {str(Requirement(need)) for need in project["dependencies"]}
    found = {str(Requirement(need)) for need in metadata.get_all("Requires-Dist") or []}
    if missing := needs - found:
        yield f"does not require {', '.join(sorted(missing))}"


def _is_found(group: str, value: str, names: set[str]) -> bool:
    """Whether an entry point's module or file is in a wheel with these names."""
    module = value.partition(":")[0].replace(".", "/")
    if group == "tunewright.model_type":  # the value is a family's name
        return True
    ends = (".py", "/__init__.py", ".jinja", "/template.jinja")
    return any(module + end in names for end in ends)


def sdist_problems(sdist: Path, wheel: Path, work: Path) -> Iterator[str]:
    """Check that the sdist makes the same wheel."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = Path(folder).iterdir()
        with contextlib.chdir(unpacked):
            made = buildapi.build_wheel(folder)
        if digest(Path(folder, made)) != digest(wheel):
            yield f"{sdist.name}: makes another wheel than {wheel.name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
