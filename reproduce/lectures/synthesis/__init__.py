"""Synthesis: images made by gradient ascent and descent on the pixels."""
