"""Reinforcement learning: the bundle text, with GRPO, online DPO, PPO and reward functions."""
