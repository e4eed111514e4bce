"""What is asked of every family."""
