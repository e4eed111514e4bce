"""What is asked of every dataset."""
