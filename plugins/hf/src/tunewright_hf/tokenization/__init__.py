"""Rendered text to token ids and labels."""
