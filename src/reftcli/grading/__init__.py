"""Judges completions: a grader turns (problem, completion) into a grade."""
