"""Measures models: completions, grades, and results with intervals."""
