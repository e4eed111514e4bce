"""Drafts of recipes: what was typed in a form, kept in the workspace.

A draft is a file `.tunewright/drafts/ID.json` with the texts of the form's fields. It survives a
reload, a closed browser and the server.
"""

import contextlib
import json
import os
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunewright.errors import RecipeError

_ID = re.compile(r"[0-9a-f]{16}")
_MOST_BYTES = 2_000_000  # of a draft
_MOST_DRAFTS = 200  # the oldest are removed


class NoDraft(RecipeError):
    """There is no draft with this id."""


@dataclass
class Draft:
    """What was typed. begun: what the draft began from, for people."""

    id: str
    texts: dict[str, str] = field(default_factory=dict)
    begun: str = ""
    notes: list[str] = field(default_factory=list)  # lines on what an import could not translate
    changed: float = 0.0  # seconds since 1970


class Drafts:
    """The drafts of a workspace. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # .tunewright/drafts
        self._lock = threading.Lock()

    def new(
        self,
        texts: Mapping[str, str] | None = None,
        begun: str = "",
        notes: list[str] | None = None,
    ) -> Draft:
        """Make a draft. Raises RecipeError if it is too large."""
        made = Draft(secrets.token_hex(8), dict(texts or {}), begun, list(notes or []))
        self._write(made)
        for old in sorted(self._files(), key=_age)[:-_MOST_DRAFTS]:
            old.unlink(missing_ok=True)
        return made

    def get(self, id: str) -> Draft:
        """Read a draft. Raises NoDraft."""
        if not _ID.fullmatch(id):
            raise NoDraft(f"there is no draft {id[:40]!r}")
        try:
            found = json.loads((self.folder / f"{id}.json").read_text("utf-8"))
            draft = Draft(**found)
        except FileNotFoundError as error:
            raise NoDraft(f"there is no draft {id!r}", hint="begin a new one") from error
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise NoDraft(f"draft {id!r} cannot be read", hint="begin a new one") from error
        draft.texts = {str(name): str(text) for name, text in draft.texts.items()}
        return draft

    def change(self, id: str, typed: Mapping[str, str]) -> Draft:
        """Set texts of a draft; an empty one removes its field. Raises NoDraft, RecipeError."""
        with self._lock:
            draft = self.get(id)
            before = dict(draft.texts)
            for name, text in typed.items():
                if text.strip():
                    draft.texts[name] = text
                else:
                    draft.texts.pop(name, None)
            if draft.texts != before:
                self._write(draft)
            return draft

    def replace(self, id: str, texts: Mapping[str, str]) -> Draft:
        """Set all texts of a draft. Raises NoDraft, RecipeError."""
        with self._lock:
            draft = self.get(id)
            draft.texts = dict(texts)
            self._write(draft)
            return draft

    def remove(self, id: str) -> None:
        """Delete a draft. Raises NoDraft."""
        self.get(id)
        (self.folder / f"{id}.json").unlink(missing_ok=True)

    def all(self) -> list[Draft]:
        """Every draft, the newest first; those that cannot be read are left out."""
        found = []
        for file in self._files():
            with contextlib.suppress(NoDraft):
                found.append(self.get(file.stem))
        return sorted(found, key=lambda draft: -draft.changed)

    def _files(self) -> list[Path]:
        return [file for file in self.folder.glob("*.json") if _ID.fullmatch(file.stem)]

    def _write(self, draft: Draft) -> None:
        draft.changed = time.time()
        made: dict[str, Any] = asdict(draft)
        text = json.dumps(made, ensure_ascii=False, indent=1)
        if len(text) > _MOST_BYTES:
            raise RecipeError(f"a draft has at most {_MOST_BYTES:,} bytes", place="draft")
        self.folder.mkdir(parents=True, exist_ok=True)
        number, temporary = tempfile.mkstemp(dir=self.folder, suffix=".new")  # mode 0600: secrets
        with open(number, "w", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
        os.replace(temporary, self.folder / f"{draft.id}.json")


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
