"""Progress in the terminal."""
