"""What an interval says of a claim, and claims of a figure."""

import pytest

from reproduce.core.claims import above, below, every, higher, outcomes, shortfall, summary, verdict


@pytest.mark.parametrize(
    ("interval", "answer"),
    [([2.0, 1.5, 2.5], True), ([0.0, -1.0, 0.5], False), ([1.0, 0.5, 1.5], None), ([5.0], None)],
)
def test_an_interval_lies_above_or_below_a_limit_or_leaves_it_open(interval, answer):
    assert above(interval, 1.0) is answer
    mirrored = [-interval[0], *(-end for end in reversed(interval[1:]))]
    assert below(mirrored, -1.0) is answer


def test_two_intervals():
    low, high, wide = [1.0, 0.8, 1.2], [2.0, 1.8, 2.2], [1.5, 0.5, 2.5]
    assert (higher(high, low), higher(low, high)) == (True, False)
    assert {
        higher(low, wide),
        higher(wide, high),
        higher(low, low),
        higher(None, low),
        higher([1.0], low),
    } == {None}


def test_one_that_is_refuted_outweighs_those_that_are_open():
    assert every([True, True]) is True
    assert every([True, None]) is None
    assert every([None, True, False]) is False
    assert every([]) is None


@pytest.mark.parametrize(
    ("held", "found"),
    [
        ({"a": True, "b": True}, "reproduced"), ({"a": True, "b": False}, "partial"), ({"a": True, "b": None}, "partial"),
        ({"a": False, "b": False}, "differs"), ({"a": False, "b": None}, "differs"), ({"a": None, "b": None}, "not comparable"), ({}, "not comparable"),
    ],
)  # fmt: skip
def test_a_verdict_counts_what_holds(held, found):
    words = {True: "holds", False: "does not hold", None: "undecided"}
    assert verdict(held) == ({claim: words[yes] for claim, yes in held.items()}, found)


@pytest.mark.parametrize(
    ("main", "found"), [(True, "partial"), (False, "differs"), (None, "not comparable")]
)
def test_nothing_is_partial_without_the_main_claim(main, found):
    assert verdict({"a": True, "b": main, "c": False}, "b")[1] == found


def test_outcomes_are_summed_up_for_readers():
    measured = {
        "claims": {"ZFNet rises": "holds", "b": "does not hold", "c": "2 of 3", "d": "3 of 3"},
        "goals": {"e": "reached", "f": "not reached", "g": True, "h": "no such class"},
        "a number": 3,
    }
    states = {claim: state for claim, _, state in outcomes(measured)}
    assert "".join(state[0] for state in states.values()) == "ynpyynyu"
    assert summary(measured) == "4 of 8 tested claims hold: ZFNet rises; d; e; g."
    assert shortfall(measured) == (
        "These claims do not hold: b; f. This claim holds in part: c. This claim is undecided: h."
    )
    assert summary({"claims": {"a": "no"}}) == "None of 1 tested claims holds."
    assert (summary({"a": 1}), shortfall({"claims": {"a": "holds"}})) == ("", "")
