"""Panels: pages that other distributions add to the workbench."""

from tunewright.plugin import Plugin

__all__ = ["Panel"]


class Panel(Plugin):
    """Kind panel: a page of the web workbench."""
