"""The pictures that courses teach around the paper, one file each; README.md is the course."""
