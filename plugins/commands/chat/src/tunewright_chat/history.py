"""History of typed messages, in the user's state folder."""

import os
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory


def state_folder() -> Path:
    """Folder for what programs keep between their calls. Raises RuntimeError without a home."""
    base = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".local/state") / "tunewright"


def history() -> History:
    """The history file, which only its owner can read; in memory where it cannot be written."""
    try:
        file = state_folder() / "chat_history"
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600)) as opened:
            if os.name == "posix":
                os.fchmod(opened.fileno(), 0o600)
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return FileHistory(str(file))
