"""Scripts that regenerate every figure and table of the paper: `python -m reproduce all`."""
