"""Templates of no particular vendor: default, chatml, alpaca, vicuna, empty, auto."""

from tunewright_templates.auto import Auto

__all__ = ["Auto"]
