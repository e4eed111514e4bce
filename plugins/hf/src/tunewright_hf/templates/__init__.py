"""Chat templates: rendering with trained spans, control tokens, replies."""
