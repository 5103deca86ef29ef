"""Runs programs that nobody has read, and hands back what they computed as plain data."""
