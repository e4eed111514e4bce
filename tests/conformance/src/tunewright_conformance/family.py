"""The family."""
