"""How a model lies over ranks."""
