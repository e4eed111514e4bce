"""Tokenization: rendered text to token ids and labels."""
