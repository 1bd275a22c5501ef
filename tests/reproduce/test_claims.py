"""Claims tested by confidence intervals, and the verdicts of figures."""

import pytest

from reproduce.core.claims import above, below, every, higher, verdict


@pytest.mark.parametrize(
    ("interval", "expected"),
    [([2.0, 1.5, 2.5], True), ([0.0, -1.0, 0.5], False), ([1.0, 0.5, 1.5], None), ([5.0], None)],
)
def test_above_and_below_compare_an_interval_with_a_limit(interval, expected):
    assert above(interval, 1.0) is expected
    mirrored = [-interval[0], *(-end for end in reversed(interval[1:]))]
    assert below(mirrored, -1.0) is expected


def test_higher_compares_two_intervals():
    low, high, wide = [1.0, 0.8, 1.2], [2.0, 1.8, 2.2], [1.5, 0.5, 2.5]
    assert (higher(high, low), higher(low, high)) == (True, False)
    assert {
        higher(low, wide),
        higher(wide, high),
        higher(low, low),
        higher(None, low),
        higher([1.0], low),
    } == {None}


def test_every_is_false_if_any_claim_is_false():
    assert every([True, True]) is True
    assert every([True, None]) is None
    assert every([None, True, False]) is False
    assert every([]) is None


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"a": True, "b": True}, "reproduced"), ({"a": True, "b": False}, "partial"), ({"a": True, "b": None}, "partial"),
        ({"a": False, "b": False}, "differs"), ({"a": False, "b": None}, "differs"), ({"a": None, "b": None}, "not comparable"), ({}, "not comparable"),
    ],
)  # fmt: skip
def test_verdict_counts_claims_that_hold(claims, expected):
    words = {True: "holds", False: "does not hold", None: "undecided"}
    assert verdict(claims) == ({claim: words[state] for claim, state in claims.items()}, expected)


@pytest.mark.parametrize(
    ("main_claim", "expected"), [(True, "partial"), (False, "differs"), (None, "not comparable")]
)
def test_main_claim_decides_the_verdict(main_claim, expected):
    assert verdict({"a": True, "b": main_claim, "c": False}, "b")[1] == expected
