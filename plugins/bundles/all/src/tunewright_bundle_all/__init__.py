"""Every plugin of Tunewright whose libraries can be installed together."""
