"""Losses over trained positions."""
