"""Judge claims by intervals, sum up the judgments in a verdict, and word it for readers.

An interval is [mean, low, high]. A judgment is True, False, or None if it is undecided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WORDS = {True: "holds", False: "does not hold", None: "undecided"}
CLAIMS = ("claims", "goals")  # keys of `measured`: the paper's claims, and a benchmark's goals
SHORTFALLS = {  # of one claim, and of several
    "no": ("This claim does not hold", "These claims do not hold"),
    "partly": ("This claim holds in part", "These claims hold in part"),
    "undecided": ("This claim is undecided", "These claims are undecided"),
}


def above(interval: Sequence[float], limit: float = 0.0) -> bool | None:
    """Whether an interval is above a limit; None if it contains the limit or has no bounds."""
    if len(interval) < 3:  # one image has no interval
        return None
    _, low, high = interval
    return True if low > limit else False if high < limit else None


def below(interval: Sequence[float], limit: float = 0.0) -> bool | None:
    """Whether an interval is below a limit; None if it contains the limit or has no bounds."""
    judgment = above(interval, limit)
    return None if judgment is None else not judgment


def higher(first: Sequence[float] | None, second: Sequence[float] | None) -> bool | None:
    """Whether the first interval is above the second; None if they overlap or lack bounds."""
    if first is None or second is None or min(len(first), len(second)) < 3:
        return None
    return True if first[1] > second[2] else False if first[2] < second[1] else None


def every(judgments: Iterable[bool | None]) -> bool | None:
    """Whether all hold: False if one does not; None if one is undecided, or there are none."""
    distinct = set(judgments)
    return False if False in distinct else True if distinct == {True} else None


def verdict(judgments: Mapping[str, bool | None], main: str = "") -> tuple[dict[str, str], str]:
    """Sum up the judgments of claims.

    Args:
        judgments: A judgment for each claim.
        main: A claim that has to hold for any verdict better than its own.

    Returns:
        The judgments in words, and the verdict. It is "reproduced" if all claims hold, "partial"
        if some do, "differs" if none holds and one is refuted, and "not comparable" if all are
        undecided.
    """
    kinds = set(judgments.values())
    if main and not judgments[main]:
        kinds = {judgments[main]}
    if True in kinds:
        summary = "reproduced" if kinds == {True} else "partial"
    else:
        summary = "differs" if False in kinds else "not comparable"
    return {claim: WORDS[judgment] for claim, judgment in judgments.items()}, summary


def explain(judgments: Mapping[str, bool | None], evidence: Mapping[str, str]) -> str:
    """State what was measured for each claim that does not hold or is undecided.

    Args:
        judgments: A judgment for each claim.
        evidence: For each claim a clause with the measured numbers.

    Returns:
        One sentence; empty if all claims hold.

    Example:
        >>> explain({"it rises": False, "it peaks": None}, {"it rises": "it falls by 3",
        ...     "it peaks": "its peak is 1 [-1, 2]"})
        'It falls by 3; its peak is 1 [-1, 2] (undecided).'
    """
    clauses = [
        evidence[claim] + (" (undecided)" if judgment is None else "")
        for claim, judgment in judgments.items()
        if not judgment
    ]
    return sentence("; ".join(clauses))


def points(interval: Sequence[float], digits: int = 1) -> str:
    """A difference in percentage points, with its interval if it has one.

    Example:
        >>> points([2.25, 0.31, 4.0]), points([-3.0], 0)
        ('+2.2 [+0.3, +4.0] points', '-3 points')
    """
    mean, *bounds = (f"{value:+z.{digits}f}" for value in interval)
    return f"{mean} [{', '.join(bounds)}] points" if bounds else f"{mean} points"


def sentence(text: str) -> str:
    """A text with a capital letter and a full stop; "" remains empty."""
    return f"{text[0].upper()}{text[1:].removesuffix('.')}." if text else ""


def outcomes(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The tested claims of a record as (claim, outcome, state).

    Args:
        measured: The measured numbers of a record.

    Returns:
        The state is "yes", "no", "partly" or "undecided".
    """
    recorded = [item for kind in CLAIMS for item in measured.get(kind, {}).items()]
    words = {True: "yes", False: "no"}
    texts = [(claim, str(words.get(value, value))) for claim, value in recorded]
    return [(claim, outcome, _state(outcome)) for claim, outcome in texts]


def _state(outcome: str) -> str:
    count = re.fullmatch(r"(\d+) of (\d+)", outcome)
    if outcome in ("holds", "reached", "yes") or (count and count[1] == count[2]):
        return "yes"
    if outcome in ("does not hold", "not reached", "no") or (count and count[1] == "0"):
        return "no"
    return "partly" if count else "undecided"


def summary(measured: Mapping[str, Any]) -> str:
    """One sentence on how many of the tested claims hold; empty without claims.

    Example:
        >>> summary({"claims": {"it rises": "holds", "it peaks": "undecided"}})
        '1 of 2 tested claims holds: it rises.'
    """
    states = [(claim, state) for claim, _, state in outcomes(measured)]
    hold = [claim for claim, state in states if state == "yes"]
    if not states:
        return ""
    if not hold:
        return f"None of {len(states)} tested claims holds."
    verb = "holds" if len(hold) == 1 else "hold"
    return f"{len(hold)} of {len(states)} tested claims {verb}: {'; '.join(hold)}."


def shortfall(measured: Mapping[str, Any]) -> str:
    """The claims that do not hold or are undecided; empty where all hold.

    Example:
        >>> shortfall({"claims": {"it rises": "holds", "it peaks": "undecided"}})
        'This claim is undecided: it peaks.'
    """
    texts = []
    for state, (one, several) in SHORTFALLS.items():
        claims = [claim for claim, _, of_claim in outcomes(measured) if of_claim == state]
        if claims:
            texts.append(f"{several if len(claims) > 1 else one}: {'; '.join(claims)}.")
    return " ".join(texts)
