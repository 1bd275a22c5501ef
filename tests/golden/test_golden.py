"""Compare the measurements of every figure on small inputs with saved golden numbers.

This folder has one JSON file per figure. It contains the verdict, n, all measured numbers, and the
shape, statistics and sixteen values of each array. A figure that cannot run has a reason instead.
`inputs.py` defines the inputs and the smaller settings.

After an intended change of a measurement, raise the `version` of the FIGURE and update the numbers:

    python -m tests.golden fig2 tab1             # without an ID: all figures
    python -m tests.golden --compare fig2        # only show the differences

The tolerances are measured. Every figure was computed twice: with one thread and AVX-512, and with
AVX2 and mostly two threads. Two thirds of the figures agreed within 1e-5, and most others within
3e-4. TOLERANCES lists the remaining figures and the reasons.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reproduce.core.discovery import discover
from reproduce.core.figure import Result
from tests.golden.inputs import CANNOT_RUN, Inputs
from tests.golden.numbers import FOLDER, Tolerance, differences, numbers_of, read, result, summarize
from tests.reproduce.house_style import violations
from zfnet import plot

FROM_SCRATCH = Tolerance(
    skip=(
        "verdict",
        "measured/claims/*",
        "measured/from scratch*",
        "measured/gain*",
        "measured/smallest gain*",
    ),
    reason="Its network is trained for two steps; rounding changes the class of a test image.",
)
TOLERANCES = {
    "faithfulness": Tolerance(
        rtol=2e-2, reason="Replacing pixels by rank follows ties in SmoothGrad's map."
    ),
    "fig4": Tolerance(rtol=2e-2, reason="Its network is trained: three epochs amplify rounding."),
    "filter_sheets": Tolerance(rtol=3e-3, reason="Steps of gradient ascent amplify rounding."),
    "mnist_templates": Tolerance(
        rtol=1e-2, reason="Its layer is fitted by L-BFGS, whose steps amplify rounding."
    ),
    "tab1": Tolerance(
        rtol=2e-2,
        atol=2e-2,
        reason="It compares signs of small differences of features, which rounding flips near 0.",
    ),
    "fooling": Tolerance(
        skip=("arrays/chosen.*",),
        reason="Rounding flips the sign of a small slope, which is a whole step of a pixel.",
    ),
    "inversions": Tolerance(rtol=1e-2, reason="Steps of optimization amplify rounding."),
    "tab4": FROM_SCRATCH,
    "tab5": FROM_SCRATCH,
    "tab3": Tolerance(
        skip=tuple(
            f"measured/{name}*"
            for name in ("training images per second", "hours of training", "commits", "devices")
        ),
        reason="It also records when and on which machine it was trained.",
    ),
}
SLOW = (  # the other figures take about a minute together
    "accuracy", "activations", "attributes", "attributions", "codes", "directions", "faces_text", "faithfulness", "fig4",
    "fig5", "fig9", "fooling", "fooling_rates", "keypoints", "localisation", "occluders", "parts_shape_texture", "pointing_game", "polar_bear",
    "tab2", "tab5", "tab7",
)  # fmt: skip

# Their results state a finding, and a reason unless the verdict is "reproduced".
EXPLAINED = ("reproduce.lectures.features.", "reproduce.lectures.invariance.")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, cache):
    return Inputs(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in discover()
        if name not in CANNOT_RUN
    ],
)
def test_figures_equal_their_golden_numbers(name, inputs):
    script, measured = discover()[name], result(name, inputs)
    numbers, figure = numbers_of(name, inputs, measured), script.FIGURE
    declared = {Path(file).name for file in figure.files} | (
        {"mnist.yaml"} if "digits" in figure.inputs else set()
    )
    assert inputs.yaml_files <= declared, (
        "the figure reads a file that is missing in FIGURE.files, and so in its cache key"
    )
    lines = list(differences(read(name), numbers, TOLERANCES.get(name, Tolerance())))
    assert not lines, "\n".join(
        [
            *lines[:20],
            f"{len(lines)} differences; if they are intended, run python -m tests.golden {name}",
        ]
    )
    if script.__name__.startswith(EXPLAINED):
        assert measured.finding.endswith(".")
        assert measured.reason.endswith(".") == (measured.verdict != "reproduced")
    if not script.__name__.startswith("reproduce.paper."):
        with inputs.settings(name), plot.style():
            pictures = script.draw(measured)
        assert [line for picture in pictures.values() for line in violations(picture)] == []


def test_every_figure_has_golden_numbers_or_a_reason():
    files = {path.stem: read(path.stem) for path in FOLDER.glob("*.json")}
    assert files.keys() == discover().keys()
    assert {
        name: numbers["cannot_run"] for name, numbers in files.items() if "cannot_run" in numbers
    } == CANNOT_RUN
    assert not [name for name, numbers in files.items() if numbers.get("verdict") == "not run"]
    assert {*SLOW, *TOLERANCES} <= files.keys() - CANNOT_RUN.keys()
    assert all(tolerance.reason for tolerance in TOLERANCES.values())


def made_up(**changes):
    values: dict[str, Any] = {
        "measured": {"share": 0.5, "claims": {"it holds": "holds"}},
        "verdict": "partial",
        "n": 4,
    }
    values["arrays"] = {"map": np.linspace(-1.0, 1.0, 100).reshape(10, 10)}
    return Result(**values | changes)


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"measured": {"share": 0.502, "claims": {"it holds": "holds"}}}, "measured/share"),
        (
            {"measured": {"share": 0.5, "claims": {"it holds": "undecided"}}},
            "measured/claims/it holds",
        ),
        ({"measured": {"share": 0.5, "claims": {}}}, "measured/claims/it holds: missing"),
        (
            {"measured": {"share": 0.5, "claims": {"it holds": "holds"}, "more": 1}},
            "measured/more: new",
        ),
        ({"verdict": "differs"}, "verdict"),
        ({"n": 5}, "n"),
        ({"arrays": {"map": np.linspace(-1.0, 1.0, 100).reshape(100)}}, "arrays/map/shape"),
        (
            {"arrays": {"map": np.linspace(-1.0, 1.0, 100).reshape(10, 10) + 0.002}},
            "arrays/map/mean",
        ),
        ({"arrays": {"map": -np.linspace(-1.0, 1.0, 100).reshape(10, 10)}}, "arrays/map/values/0"),
        ({"arrays": {"map": np.array(["a", "b"])}}, "arrays/map/dtype"),
    ],
)
def test_changed_numbers_are_reported(change, reported):
    lines = list(differences(summarize(made_up()), summarize(made_up(**change)), Tolerance()))
    assert any(line.startswith(reported) for line in lines)


def test_rounding_and_skipped_numbers_are_not_differences():
    golden, close = (
        summarize(made_up()),
        summarize(made_up(measured={"share": 0.50001, "claims": {"it holds": "holds"}})),
    )
    assert not list(differences(golden, close, Tolerance()))
    different = summarize(made_up(measured={"share": 0.7, "claims": {"it holds": "holds"}}))
    assert not list(differences(golden, different, Tolerance(skip=("measured/share",))))
