"""Train every weight."""
