"""The claims of Figure 7: what happens when the object, the projection or faces are covered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reproduce.core.annotations import DISTRACTOR
from reproduce.core.claims import sentence

SHOWN, HIDDEN = "its projection", "the rest of its receptive field"
PROBABILITY = "change of the class's probability, by what is covered"
LOGIT = "change of the class's logit, by what is covered"
MAP = "change of the strongest map, %, by what is covered"
LOWERS = "covering the object lowers its class's probability more than covering other places"
VALIDATES = (
    "covering what the strongest map's projection shows lowers that map more than covering the "
    "rest of its receptive field"
)
FACES = "next to the hound, covering faces lowers the strongest map more than covering the dog"


def judge(rows: dict[str, dict]) -> tuple[dict[str, str], str, str]:
    """Count for each claim the photographs in which it holds.

    Args:
        rows: What was measured, by photograph.

    Returns:
        The counts by claim, the verdict, and its reason. The verdict is "reproduced" if each claim
        was tested and held everywhere.
    """
    tests: dict[str, list[bool]] = {LOWERS: [], VALIDATES: [], FACES: []}
    failures = []
    for name, row in rows.items():
        for claim, holds, evidence in _tests(row):
            tests[claim].append(holds)
            failures += [] if holds else [f"{name}: {evidence}"]
    claims = {
        claim: f"{sum(results)} of {len(results)}" for claim, results in tests.items() if results
    }
    if not tests[FACES]:
        return claims, "not comparable", "No photograph tests the claim about faces and a hound."
    reason = sentence("; ".join(failures))
    results = [result for of_claim in tests.values() for result in of_claim]
    if all(tests.values()) and all(results):
        return claims, "reproduced", ""
    return claims, "partial" if any(results) else "differs", reason


def _tests(row: dict) -> Iterator[tuple[str, bool, str]]:
    """The claims that a photograph tests, whether each holds, and what was measured."""
    change, activation, enough = row[PROBABILITY], row[MAP], set(row["testable"])
    if "elsewhere" in enough:
        for kind in sorted(enough - {DISTRACTOR, "elsewhere", SHOWN, HIDDEN}):
            yield (
                LOWERS,
                change[kind] < min(0.0, change["elsewhere"]),
                (
                    f"covering the {kind} changes the probability by {change[kind]:+.2f}, covering "
                    f"other places by {change['elsewhere']:+.2f}"
                ),
            )
    pairs = ((VALIDATES, SHOWN, HIDDEN, 0.0), (FACES, DISTRACTOR, "dog", np.inf))
    for claim, first, second, limit in pairs:
        if {first, second} <= enough:
            yield (
                claim,
                activation[first] < min(limit, activation[second]),
                (
                    f"covering the {first.removeprefix('its ')} changes the strongest map by "
                    f"{activation[first]:+.0f} %, covering the {second.removeprefix('the ')} by "
                    f"{activation[second]:+.0f} %"
                ),
            )


def summarize(rows: dict[str, dict], claims: dict[str, str]) -> str:
    """In how many photographs the first two claims hold, with the largest effects."""
    parts = [
        f"{text} in {claims[claim]} photographs"
        for claim, text in (
            (LOWERS, "covering the object lowers its class's probability"),
            (VALIDATES, "covering what its projection shows lowers the strongest map"),
        )
        if claim in claims
    ]
    if not parts:
        lowest = min(min(row[MAP].values(), default=0.0) for row in rows.values())
        parts = [f"The gray square lowers the strongest map by up to {-lowest:.0f} %"]
    return sentence("; ".join(parts))
