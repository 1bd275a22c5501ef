"""Synthesis: images made by gradient descent on their pixels."""
