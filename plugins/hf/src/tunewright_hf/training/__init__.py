"""Training loop, and trainers of the stages."""
