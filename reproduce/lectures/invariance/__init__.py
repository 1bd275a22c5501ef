"""Invariance: which changes of an image matter."""
