"""Predictions of a trained model: examples, answers and the lines that they are written to."""
