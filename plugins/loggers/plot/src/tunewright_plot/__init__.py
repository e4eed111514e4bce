"""The loss curve as a PNG."""
