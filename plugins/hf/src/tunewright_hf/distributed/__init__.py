"""Distribution of a model over ranks."""
