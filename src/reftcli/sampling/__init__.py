"""Draws completions from a model: one interface, shared by RL, eval, vote and rerank."""
