"""The claims of Table 3: which changes cost little, and which help."""

from __future__ import annotations

from reproduce.core.claims import above, below, every, points
from reproduce.paper.contrasts import (
    ALL_FOUR,
    BEYOND,
    SIX_SEVEN,
    THREE_FOUR,
    WIDER,
    WIDEST,
    ZFNET,
)

Judgments = dict[str, bool | None]


def judge_costs(
    costs: dict[str, list[float]], overfit: list[float], config: dict
) -> tuple[Judgments, dict[str, str]]:
    """Judge the paper's conclusions.

    Args:
        costs: Intervals of the costs of all changes, in points.
        overfit: Interval of the change in training error by `WIDEST`, in points.
        config: Shares of the cost of removing four layers that count as "little" and "hardly".

    Returns:
        The judgments, and for each claim what was measured.
    """
    judgments, evidence = _depth(costs, config)
    widths, width_evidence = _width(costs, overfit, config["hardly"])
    claim = "ZFNet's error is below AlexNet's"
    judgments |= widths | {claim: below(costs[ZFNET])}
    evidence |= width_evidence
    return judgments, evidence | {
        claim: f"ZFNet's error differs from AlexNet's by {points(costs[ZFNET])}"
    }


def _depth(costs: dict[str, list[float]], config: dict) -> tuple[Judgments, dict[str, str]]:
    """The claims about removed layers."""
    all_four = costs[ALL_FOUR]
    claim = "removing layers 3, 4, 6 and 7 costs more than removing 3, 4 and 6, 7 separately"
    judgments: Judgments = {claim: False if below(all_four) else above(costs[BEYOND])}
    total = f"removing all four changes the error by {points(all_four)}"
    evidence = {claim: f"{total}, {points(costs[BEYOND])} compared with the sum of the two pairs"}
    for name, layers in ((THREE_FOUR, "3 and 4"), (SIX_SEVEN, "6 and 7")):
        share = 100 * config["little"]
        claim = f"removing layers {layers} costs less than {share:.0f} % of removing all four"
        judgments[claim] = _costs_less(costs[name], all_four, config["little"])
        evidence[claim] = (
            f"removing layers {layers} changes the error by {points(costs[name])}, removing all "
            f"four by {points(all_four)}"
        )
    return judgments, evidence


def _width(
    costs: dict[str, list[float]], overfit: list[float], share: float
) -> tuple[Judgments, dict[str, str]]:
    """The claims about the widths of layers."""
    all_four = costs[ALL_FOUR]
    dense = [name for name in costs if "layers 6, 7 of" in name]
    largest = max(dense, key=lambda name: abs(costs[name][0]))
    widths = f"the width of layers 6 and 7 costs less than {100 * share:.0f} % of removing all four"
    wide = "wider layers 3-5 lower the error"
    widest = (
        "widening layers 6 and 7 too overfits: the training error falls and the validation error "
        "rises"
    )
    within = [
        judgment
        for name in dense
        for judgment in (
            _costs_less(costs[name], all_four, share),
            above(costs[name], -share * all_four[0]) if all_four[1] > 0 else None,
        )
    ]
    judgments: Judgments = {
        widths: every(within),
        wide: below(costs[WIDER]),
        widest: every((below(overfit), above(costs[WIDEST]))),
    }
    return judgments, {
        widths: f"{largest} changes the error by {points(costs[largest])}, removing all four "
        f"layers by {points(all_four)}",
        wide: f"wider layers 3-5 change the error by {points(costs[WIDER])}",
        widest: f"wider layers 6 and 7 too change the training error by {points(overfit)} and the "
        f"validation error by {points(costs[WIDEST])}",
    }


def _costs_less(cost: list[float], all_four: list[float], share: float) -> bool | None:
    """Whether a cost is below a share of that of all four layers; None if that is not positive."""
    return below(cost, share * all_four[0]) if all_four[1] > 0 else None
