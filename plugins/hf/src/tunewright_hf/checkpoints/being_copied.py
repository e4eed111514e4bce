"""Folders that are being copied elsewhere, and must not be removed meanwhile."""

import threading
from collections import Counter
from pathlib import Path

_changed = threading.Condition()
_folders: Counter[Path] = Counter()


def add(folder: Path) -> None:
    """Keep a folder until `remove`."""
    with _changed:
        _folders[folder.absolute()] += 1


def remove(folder: Path) -> None:
    """It is copied."""
    with _changed:
        _folders[folder.absolute()] -= 1
        _changed.notify_all()


def wait_for(folder: Path) -> None:
    """Wait until nobody copies a folder."""
    with _changed:
        _changed.wait_for(lambda: _folders[folder.absolute()] <= 0)
