"""Golden numbers: the measurements of every figure on small inputs, saved as JSON."""
