"""The plugins that a recipe has by default."""
