"""Conversations and plain text from files, rendered, masked and tokenised."""
