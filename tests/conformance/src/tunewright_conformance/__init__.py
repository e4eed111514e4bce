"""The tests that every Tunewright plugin has to pass."""
