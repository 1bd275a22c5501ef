"""Features: what units respond to."""
