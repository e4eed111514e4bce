"""Fine-tune text models: every family and adapter; sft, preferences, pretraining."""
