"""The explorer: a local page to explore a network interactively."""
