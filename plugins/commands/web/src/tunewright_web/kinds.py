"""The kind of plugins that `tunewright web` shows."""

from tunewright.kinds import Kind

KINDS = (
    Kind("panel", "Page of the web workbench.", section=False, base="tunewright_web.panels:Panel"),
)
