"""Analysis: measurements of units, layers and predictions over many images."""
