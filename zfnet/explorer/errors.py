"""The errors that a page shows as one sentence."""

from __future__ import annotations


class BadRequest(ValueError):
    """A request that cannot be answered. The message says what is wrong and what to do."""


class Superseded(Exception):
    """A newer request of the same tab has taken this one's place in the queue."""


class Cancelled(Exception):
    """The tab has cancelled the computation, or has been closed."""
