"""Figures that courses teach around the paper, by theme. The course is in docs/course."""
