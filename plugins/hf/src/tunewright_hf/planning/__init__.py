"""Memory and time of a recipe's training step, known before the run."""
