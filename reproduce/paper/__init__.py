"""One file per figure or table of the paper, in the paper's order."""
