"""What measurements say of claims: an interval bears one out, refutes it or leaves it open; and the verdict on all together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

WORDS = {True: "holds", False: "does not hold", None: "undecided"}


def above(interval: Sequence[float], limit: float = 0.0) -> bool | None:
    """Whether an interval [mean, low, high] lies above a limit; None where it reaches to both sides, or is not known."""
    if len(interval) < 3:  # of one image
        return None
    _, low, high = interval
    return True if low > limit else False if high < limit else None


def below(interval: Sequence[float], limit: float = 0.0) -> bool | None:
    """Whether an interval [mean, low, high] lies below a limit, likewise."""
    return None if (answer := above(interval, limit)) is None else not answer


def higher(one: Sequence[float] | None, other: Sequence[float] | None) -> bool | None:
    """Whether an interval [mean, low, high] lies above another; None where they overlap, or one is not known."""
    if one is None or other is None or min(len(one), len(other)) < 3:
        return None
    return True if one[1] > other[2] else False if one[2] < other[1] else None


def every(answers: Iterable[bool | None]) -> bool | None:
    """Whether all hold: False if one does not, None if none is refuted but some are open, or there are none."""
    found = set(answers)
    return False if False in found else True if found == {True} else None


def verdict(held: Mapping[str, bool | None], main: str = "") -> tuple[dict[str, str], str]:
    """Claims in words, where None is undecided, and the verdict.

    Reproduced if all hold, partial if some do, differs if none holds and one is refuted; not comparable where the measurements
    leave all of them open. Of a `main` claim that does not hold the others make nothing partial.
    """
    kinds = {held[main]} if main and not held[main] else set(held.values())
    if True in kinds:
        found = "reproduced" if kinds == {True} else "partial"
    else:
        found = "differs" if False in kinds else "not comparable"
    return {claim: WORDS[yes] for claim, yes in held.items()}, found
