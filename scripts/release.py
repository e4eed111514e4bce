"""Make a release: `python scripts/release.py [VERSION] [--dry-run]`.

In a clone of the last commit: give all members the version, turn the change fragments into a
section of CHANGELOG.md, check the workflow file that publishes, commit, tag, and build every
distribution into dist/. Without --dry-run the commit and the tag then come to this checkout.
Nothing is uploaded from here: pushing the tag starts .github/workflows/release.yml, which PyPI
trusts (OpenID Connect, no token is stored). Default version: the members', if it has no tag yet.
"""

import datetime
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import build_dists
from make_lists import members
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ".github/workflows/release.yml"
BOUNDS = re.compile(r"(tunewright(?:-[a-z0-9-]+)?(?:\[[a-z-]+\])?)>=(\d+)\.(\d+),<\2\.(\d+)")
HEADINGS = {  # kind of a fragment → heading in CHANGELOG.md, in this order
    "added": "Added",
    "changed": "Changed",
    "fixed": "Fixed",
    "deprecated": "Deprecated",
    "removed": "Removed",
    "security": "Security",
}


def main(arguments: list[str]) -> int:
    dry = "--dry-run" in arguments
    words = [word for word in arguments if word != "--dry-run"]
    if len(words) > 1 or any(word.startswith("-") for word in words):
        print(__doc__)
        return 2
    try:
        version = chosen(words[0] if words else "")
        if left := git(ROOT, "status", "--porcelain"):
            if not dry:
                raise ReleaseError("uncommitted changes: commit or remove them", left)
            print("warning: uncommitted changes are not part of it", file=sys.stderr)
        with tempfile.TemporaryDirectory() as work:
            clone = Path(work, "tunewright")
            git(ROOT, "clone", "--quiet", "--no-tags", str(ROOT), str(clone))
            prepare(clone, version)
            build(clone)
            if not dry:
                git(ROOT, "pull", "--quiet", "--ff-only", str(clone), "HEAD")
                git(ROOT, "fetch", "--quiet", str(clone), "tag", f"v{version}")
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    done = "would be" if dry else "is"
    print(
        f"v{version} {done} committed and tagged here; to publish: git push origin HEAD v{version}"
    )
    return 0


class ReleaseError(Exception):
    """The release cannot be made. What was found, and details on lines of their own."""

    def __init__(self, problem: str, details: str = "") -> None:
        super().__init__(f"{problem}\n{details}" if details else problem)


def git(folder: Path, *arguments: str) -> str:
    """Run git, and return its output. Raises ReleaseError."""
    named = ["-c", f"user.name={identity('name')}", "-c", f"user.email={identity('email')}"]
    command = ["git", *named, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {' '.join(arguments[:2])} failed", done.stderr.strip())
    return done.stdout.strip()


def identity(field: str) -> str:
    """Name or e-mail address of the committer, from the settings of git."""
    command = ["git", "config", f"user.{field}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or {"name": "Tunewright", "email": "release@localhost"}[field]


def chosen(asked: str) -> str:
    """The version to release. Raises ReleaseError for one that cannot be."""
    kernel = build_dists.read_project(members()[0])["version"]
    tags = git(ROOT, "tag", "--list", "v*").split()
    try:
        version = Version(asked or kernel)
        released = [Version(tag[1:]) for tag in tags]
    except InvalidVersion as error:
        raise ReleaseError(f"{error}: expected MAJOR.MINOR.PATCH") from error
    if len(version.release) != 3 or str(version) != (asked or kernel):
        raise ReleaseError(f"{asked!r} is no version, expected MAJOR.MINOR.PATCH")
    if released and version <= max(released):
        raise ReleaseError(f"{version} is not newer than the last release, {max(released)}")
    return str(version)


def prepare(clone: Path, version: str) -> None:
    """Set the version, write the changelog, check the workflow file, commit and tag, in a clone."""
    set_version(clone, version)
    step("versions in lockstep", clone, "git", "diff", "--stat", "--", "*.toml", "kernel")
    changelog(clone, version)
    check_workflow(clone)
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", f"Release {version}")
    git(clone, "tag", "--annotate", "--message", f"Tunewright {version}", f"v{version}")
    print(f"commit and tag v{version}: {git(clone, 'describe', '--tags')}")


def check_workflow(root: Path) -> None:
    """Compare the workflow file with the schema of workflows. Raises ReleaseError."""
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW]
    step("workflow file", root, sys.executable, *command)


def build(clone: Path) -> None:
    """Build the distributions of the tagged commit into dist/ of this checkout."""
    os.environ["SOURCE_DATE_EPOCH"] = git(clone, "log", "-1", "--format=%ct")
    script = str(clone / "scripts/build_dists.py")
    step("build", clone, sys.executable, script, str(ROOT / "dist"))


def step(title: str, folder: Path, *command: str) -> None:
    """Run a command and print the last line of its output. Raises ReleaseError with all of it."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = (done.stdout + done.stderr).strip()
    if done.returncode:
        raise ReleaseError(f"{title}: failed", output)
    print(f"{title}: {(output.splitlines() or ['unchanged'])[-1].strip()}")


# ---- versions and the changelog ------------------------------------------------------------------


def set_version(root: Path, version: str) -> None:
    """Give all members the version, and every range of kernel versions its minor version."""
    major, minor = version.split(".")[:2]
    bounds = rf"\1>={major}.{minor},<{major}.{int(minor) + 1}"
    for member in members():
        file = root / member.relative_to(ROOT) / "pyproject.toml"
        replace(file, r'(?m)^version = ".*"$', f'version = "{version}"')
    replace(
        root / "kernel/src/tunewright/__init__.py",
        r'(?m)^__version__ = ".*"$',
        f'__version__ = "{version}"',
    )
    texts = [*root.rglob("pyproject.toml"), *root.glob("docs/**/*.md"), root / "CONTRIBUTING.md"]
    for file in texts:
        file.write_text(BOUNDS.sub(bounds, file.read_text("utf-8")), "utf-8")


def replace(file: Path, pattern: str, new: str) -> None:
    """Replace the one place of a file that a pattern matches. Raises ReleaseError."""
    text, count = re.subn(pattern, new, file.read_text("utf-8"))
    if count != 1:
        raise ReleaseError(f"{file}: {count} lines match {pattern}, expected 1")
    file.write_text(text, "utf-8")


def changelog(root: Path, version: str) -> None:
    """Move the fragments of changes/ into a new section of CHANGELOG.md."""
    file = root / "CHANGELOG.md"
    old = file.read_text("utf-8") if file.is_file() else "# Changelog\n"
    head, _, rest = old.partition("\n## ")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    section = f"## {version} ({date})\n"
    count = 0
    for kind, heading in HEADINGS.items():
        fragments = sorted((root / "changes").glob(f"*.{kind}.md"))
        if fragments:
            lines = [f"- {fragment.read_text('utf-8').strip()}\n" for fragment in fragments]
            section += f"\n### {heading}\n\n{''.join(lines)}"
            count += len(lines)
        for fragment in fragments:
            fragment.unlink()
    left = [each.name for each in (root / "changes").iterdir() if each.name != "README.md"]
    if left or not count:
        raise ReleaseError("no change fragments" if not left else f"unknown fragments: {left}")
    file.write_text(f"{head}\n{section}" + (f"\n## {rest}" if rest else ""), "utf-8")
    print(f"CHANGELOG.md: {count} changes")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
