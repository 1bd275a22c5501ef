"""Training: the loop's parts that are more than the paper's recipe."""
