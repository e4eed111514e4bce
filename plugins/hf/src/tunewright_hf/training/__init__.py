"""The training loop, and the trainers of the stages."""
