"""What is asked of every adapter."""
