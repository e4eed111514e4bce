"""Row formats: alpaca, sharegpt, openai, text."""
