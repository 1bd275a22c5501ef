"""The exit statuses of `python -m reproduce`."""

OK = 0
FAILED = 1  # a figure raised an error
WRONG = 2  # the user's input cannot be used
NOT_RUN = 3  # a figure that was requested by id could not be made
INTERRUPTED = 130
