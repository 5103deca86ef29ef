"""Folders that hold one execution each: what ran, with which settings, and what came out."""
