"""Golden numbers: what each figure measures on small inputs, kept as JSON and compared in a test."""
