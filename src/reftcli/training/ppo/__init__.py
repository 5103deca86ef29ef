"""The RL stage: rollout, grade, reward, values, advantages, clipped losses, step."""
