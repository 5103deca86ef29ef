"""The stages that change weights: warm-up (SFT), RL (PPO) and the reward model."""
