"""`scripts/dev.py release`: versions in lockstep, the changelog, the tag and the workflow file."""

import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from workspace.members import ROOT, members, script


@pytest.fixture
def release() -> ModuleType:
    return script("release")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """This checkout at its last commit."""
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    return tmp_path / "clone"


@pytest.mark.slow
def test_a_release_is_one_commit_with_a_tag(
    release: ModuleType, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.prepare(clone, "7.3.0")
    for member in members():
        file = clone / member.folder.relative_to(ROOT) / "pyproject.toml"
        project = tomllib.loads(file.read_text("utf-8"))["project"]
        assert project["version"] == "7.3.0"
        ours = [need for need in project["dependencies"] if need.startswith("tunewright")]
        assert all(need.endswith(">=7.3,<7.4") for need in ours)
    assert '__version__ = "7.3.0"' in (clone / "kernel/src/tunewright/__init__.py").read_text()
    assert "tunewright>=7.3,<7.4" in (clone / "CONTRIBUTING.md").read_text()
    assert release.git(clone, "describe", "--exact-match") == "v7.3.0"
    assert release.git(clone, "status", "--porcelain") == ""
    changelog = (clone / "CHANGELOG.md").read_text("utf-8")
    for file in (ROOT / "changes").glob("*.added.md"):
        if subprocess.run(["git", "ls-files", "--error-unmatch", file], cwd=ROOT).returncode == 0:
            assert f"- {file.read_text('utf-8')}" in changelog
    assert [file.name for file in (clone / "changes").iterdir()] == ["README.md"]
    assert "workflow file: ok" in capsys.readouterr().out


def test_a_new_section_comes_before_the_old_ones(release: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "changes").mkdir()
    (tmp_path / "changes/a.added.md").write_text("A is new.\n")
    (tmp_path / "changes/b.fixed.md").write_text("B is right.\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0 (2020-01-01)\n\n- Old.\n")
    release.changelog(tmp_path, "0.2.0")
    head, new, old = (tmp_path / "CHANGELOG.md").read_text().split("## 0.")
    assert head == "# Changelog\n\n"
    assert new.partition("\n")[2] == "\n### Added\n\n- A is new.\n\n### Fixed\n\n- B is right.\n\n"
    assert old.endswith("- Old.\n")
    with pytest.raises(release.ReleaseError, match="no change fragments"):
        release.changelog(tmp_path, "0.3.0")


def test_a_broken_workflow_file_stops_it(release: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / release.WORKFLOW
    file.parent.mkdir(parents=True)
    text = (ROOT / release.WORKFLOW).read_text("utf-8")
    file.write_text(text.replace("runs-on:", "run-on:", 1))
    with pytest.raises(release.ReleaseError, match="runs-on"):
        release.check_workflow(tmp_path)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("1.0", "expected MAJOR.MINOR.PATCH"),
        ("v1.0.0", "expected MAJOR.MINOR.PATCH"),
        ("one", "expected MAJOR.MINOR.PATCH"),
        ("0.4.0", "not newer than the last release, 0.5.0"),
    ],
)
def test_a_version_that_cannot_be_released(
    release: ModuleType, monkeypatch: pytest.MonkeyPatch, asked: str, problem: str
) -> None:
    monkeypatch.setattr(release, "git", lambda *_: "v0.1.0\nv0.5.0")
    with pytest.raises(release.ReleaseError, match=problem):
        release.chosen(asked)


def test_the_workflow_publishes_without_a_stored_secret() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    assert "id-token: write" in text
    assert "secrets." not in text
    assert "password" not in text
