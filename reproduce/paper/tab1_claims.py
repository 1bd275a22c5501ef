"""The claims of Table 1: parts against random parts, and against the control of position."""

from __future__ import annotations

from reproduce.core.claims import above
from reproduce.paper.dog_faces import PARTS

TOGETHER = "all three parts"
MINUS_RANDOM = "random parts minus the part"
MINUS_CONTROL = "another dog's place minus the part"
SMALLER = "relative advantage of the parts, layer 5 minus layer 7, points"
MAIN = "layer 5: the parts together are treated more alike than random parts"
BEYOND_POSITION = "layer 5: the parts are treated more alike than places where another dog has them"


def judge_parts(measured: dict) -> tuple[dict[str, bool | None], dict[str, str]]:
    """Judge the claims; the paper's main one is of the three parts together.

    Returns:
        The judgments, and for each claim what was measured.
    """
    random, control = (
        measured[f"layer 5: {difference}"] for difference in (MINUS_RANDOM, MINUS_CONTROL)
    )
    smaller = "layer 7: relative to random parts, the parts' advantage is smaller than at layer 5"
    judgments = {MAIN: above(random[TOGETHER])}
    evidence = {MAIN: f"Δ of random parts minus Δ of the parts is {_delta(random[TOGETHER])}"}
    for part in PARTS:
        claim = f"layer 5: the {part} is treated more alike than random parts"
        judgments[claim] = above(random[part])
        evidence[claim] = f"Δ of random parts minus Δ of the {part} is {_delta(random[part])}"
    judgments |= {smaller: above(measured[SMALLER]), BEYOND_POSITION: above(control[TOGETHER])}
    mean, *bounds = (f"{value:.0f}" for value in measured[SMALLER])
    return judgments, evidence | {
        smaller: f"the parts' relative advantage at layer 5 is {mean} [{', '.join(bounds)}] points "
        "larger than at layer 7",
        BEYOND_POSITION: "Δ of places where another dog has the part minus Δ of the part is "
        f"{_delta(control[TOGETHER])}",
    }


def summarize(measured: dict) -> str:
    """What the control and the random parts show at layer 5; position first."""
    random, control = (
        measured[f"layer 5: {difference}"][TOGETHER] for difference in (MINUS_RANDOM, MINUS_CONTROL)
    )
    if len(control) < 3:
        return "There are too few images to compare a part with its position."
    beyond, alike = ("more" if above(of) else "no more" for of in (control, random))
    return (
        f"Masking a part changes layer 5 {beyond} alike from dog to dog than masking the place "
        f"where another dog has it (difference in Δ: {_delta(control)}), and {alike} alike than "
        f"masking random parts ({_delta(random)})."
    )


def _delta(interval: list[float]) -> str:
    """A difference of Δ with its interval."""
    mean, *bounds = (f"{value:z.3f}" for value in interval)
    return f"{mean} [{', '.join(bounds)}]" if bounds else mean
