"""Analysis: measurements of units, layers and predictions over images."""
