"""Where prepared rows are kept: without a home, and in nobody else's folder."""

from pathlib import Path

import pytest


def test_without_a_home_the_cache_is_in_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TUNEWRIGHT_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    from tunewright_dataset_chat import local_paths

    folder, note = local_paths.default_cache()
    assert folder.is_relative_to(tmp_path / "temporary")
    assert note.startswith("no home folder is known: prepared rows are kept in")
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_a_temporary_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewright import RunError
    from tunewright_dataset_chat import local_paths

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: 4711)
    (tmp_path / "tunewright-4711").mkdir()  # of the user that runs the tests
    with pytest.raises(RunError, match="belongs to somebody else"):
        local_paths._own_temporary()
    (tmp_path / "tunewright-4711").rmdir()
    (tmp_path / "tunewright-4711").symlink_to(tmp_path)
    with pytest.raises(RunError, match="belongs to somebody else"):
        local_paths._own_temporary()
