"""Model families: loading, tiny models, precision, export."""
