"""Reinforcement learning: the bundle text, with GRPO, PPO and reward functions."""
