"""Show how a template renders a conversation."""
