"""Record formats: conversations, plain text, prompts, and answers that are compared, ranked or
labelled."""
