"""What is asked of every stage."""
