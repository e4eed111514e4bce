"""Look at the data as the model will see it."""
