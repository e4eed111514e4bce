"""Qwen 1.5 to 2.5 and Qwen3, dense and MoE."""
