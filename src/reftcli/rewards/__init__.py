"""Turns grades into the numbers that PPO sees."""
