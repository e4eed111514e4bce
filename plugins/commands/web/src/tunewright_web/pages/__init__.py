"""All pages: entries of the navigation, and the modules that serve them.

A page is a module with `PAGE`. It is imported at the first request for it: with all pages the
server would start twice as slowly.
"""

import importlib
from typing import NamedTuple

from tunewright_web.page import Page

__all__ = ["NAVIGATION", "Entry", "all_pages", "pages_of"]


class Entry(NamedTuple):
    """An entry of the navigation. name: of the page that it belongs to. label: in English."""

    name: str
    label: str
    path: str
    icon: str


NAVIGATION = (
    Entry("runs", "Runs", "/", "runs"),
    Entry("new", "New run", "/new", "plus"),
    Entry("compare", "Compare", "/compare", "compare"),
    Entry("chat", "Chat", "/chat", "chat"),
    Entry("evaluate", "Evaluate", "/evaluate", "gauge"),
    Entry("export", "Export", "/export", "package"),
    Entry("models", "Models", "/models", "cube"),
    Entry("data", "Data", "/data", "database"),
    Entry("plugins", "Plugins", "/plugins", "plug"),
    Entry("settings", "Settings", "/settings", "gear"),
)

#: module → first parts of the paths that it serves, and of those below /api/v1
_SERVES: dict[str, tuple[str, str]] = {
    "runs": (" runs", ""),
    "runs_api": ("", "runs system"),
    "run": ("runs", "runs"),
    "queue": ("jobs", "jobs"),
    "new": ("new", "schema models check preview plan drafts uploads"),
    "compare": ("compare", "compare"),
    "chat": ("chat", "chats"),
    "evaluate": ("evaluate", "evaluations"),
    "export": ("export", "exports"),
    "models": ("models", ""),
    "data": ("data", ""),
    "plugins": ("plugins", "plugins"),
    "settings": ("settings", ""),
    "panel": ("x", ""),
}


def all_pages() -> tuple[Page, ...]:
    """Every page, imported."""
    return tuple(map(_page, _SERVES))


def pages_of(first: str, *, api: bool) -> tuple[Page, ...]:
    """Pages that serve paths with this first part. api: below /api/v1."""
    return tuple(_page(name) for name, parts in _SERVES.items() if first in parts[api].split(" "))


def _page(name: str) -> Page:
    page: Page = importlib.import_module(f"tunewright_web.pages.{name}").PAGE
    return page
