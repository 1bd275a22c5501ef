"""Attribution: which pixels matter for a class."""
