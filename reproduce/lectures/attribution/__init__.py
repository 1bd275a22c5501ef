"""Attribution: which pixels support a class."""
