"""Exporters: base classes of those that quantize."""
