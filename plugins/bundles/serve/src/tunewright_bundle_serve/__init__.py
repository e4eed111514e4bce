"""Chat with trained models and serve them over HTTP."""
