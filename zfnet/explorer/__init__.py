"""The explorer: a local page that shows what a network makes of an image, while it is touched."""
