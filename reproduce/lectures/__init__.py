"""Figures that courses teach around the paper, by theme. README.md is the course."""
