"""The pictures of the benchmarks are in house style, and the rules find what breaks them.

The other figures are checked where their results are computed, in tests/golden.
"""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from reproduce.bench.bench_speed import NETWORKS
from reproduce.bench.comparison import CAPTUM, OURS, PLAIN, ZENNIT
from reproduce.bench.speed_plot import BOUND, SIZES
from reproduce.core.discovery import discover
from reproduce.core.figure import Result
from reproduce.core.page import label_lines, new_page, plain, spread_apart
from tests.conftest import ROOT
from tests.reproduce.house_style import violations
from zfnet.plot import style

TITLE = "The title of a picture states what is seen"
SCRIPTS = sorted((ROOT / "reproduce" / "lectures").rglob("*.py"))
LONGEST_FUNCTION, LONGEST_FILE = 55, 230  # lines


def draw(title=TITLE, size=8, panels=2, label="seconds", width=8.4) -> Figure:
    with style():
        figure = Figure(figsize=(width, 4), layout="constrained")
        figure.suptitle(title)
        for axes in np.atleast_1d(figure.subplots(1, panels)):
            axes.plot([1, 2], [3, 4])
            axes.set(xticks=[1, 2], yticks=[3], xlabel=label, ylabel=label)
            axes.text(1.2, 3.5, "text", fontsize=size)
    return figure


def test_a_picture_in_house_style_breaks_no_rule():
    assert violations(draw()) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"title": "Results"}, "does not state a finding"),
        ({"size": 6}, "pixels high"),
        ({"width": 14, "size": 9}, "pixels high"),
        ({"panels": 13}, "13 panels"),
        ({"label": ""}, "has numbers and no label"),
    ],
)
def test_a_broken_rule_is_named(changes, rule):
    assert any(rule in line for line in violations(draw(**changes)))


def test_texts_that_overlap_or_leave_the_picture_are_named():
    figure = draw(panels=1)
    (axes,) = figure.axes
    axes.text(1.2, 3.5, "over it")
    assert any("overlap" in line for line in violations(figure))
    figure = draw(panels=1)
    figure.axes[0].text(2.0, 3.2, "a text that is much too long", clip_on=False).set_in_layout(
        False
    )
    assert any("leaves the picture" in line for line in violations(figure))


def test_percent_signs_stay_with_their_numbers():
    assert plain("95 % of $5, 3% of\n4") == "95\u00a0% of \\$5, 3\u00a0% of\n4"


def test_labels_are_moved_apart_with_least_squares():
    places = spread_apart(np.array([0.0, 0.1, 0.11, 0.9]), np.full(4, 0.2))
    assert np.diff(places).min() == pytest.approx(0.2)
    assert places[-1] == pytest.approx(0.9)
    assert places[:3].mean() == pytest.approx(0.07)  # as before
    assert spread_apart(np.array([0.1, 0.5]), np.array([0.2, 0.2])).tolist() == [0.1, 0.5]
    high_and_low = spread_apart(np.array([0.3, 0.3]), np.array([0.6, 0.2]))
    np.testing.assert_allclose(high_and_low, [0.1, 0.5])


def test_lines_that_end_at_one_point_have_labels_that_do_not_overlap():
    with style():
        figure = new_page(3)
        axes = figure.subplots()
        for name in range(6):
            axes.plot([0, 1], [name, 3])
        axes.set(ylim=(0, 6), xlabel="time, s", ylabel="length, m")
        label_lines(axes, {f"line {name}": (3.0, "black") for name in range(6)}, 1)
        figure.suptitle(TITLE)
    assert violations(figure) == []


@pytest.mark.parametrize("name", ["bench_speed", "bench_train"])
def test_the_pictures_of_benchmarks_are_in_house_style(name):
    record = json.loads((ROOT / f"figures/imagenet65k/{name}/result.json").read_text())
    at = np.array([2.0, 4, 8, 16])
    arrays = {f"{task}.at": at for task in SIZES}
    arrays |= {f"{task}.seconds": 0.3 * at[:, None] * [1.0, 0.9, 1.2] for task in SIZES}
    ratios = {f"{method} over {OURS}": [5.0, 4.5, 5.5] for method in (PLAIN, CAPTUM, ZENNIT)}
    networks = {network: ratios | {BOUND: 7.0} for network in ("VGG-16", "ResNet-18", "AlexNet")}
    measured = record["measured"] | {NETWORKS: networks}
    result = Result(arrays, measured, record["verdict"], record["n"])
    with style():
        pictures = discover()[name].draw(result)
    drawn = [picture for picture in pictures.values() if not isinstance(picture, str)]
    assert [line for picture in drawn for line in violations(picture)] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_short(path: Path):
    lines = path.read_text().splitlines()
    functions = [n for n in ast.walk(ast.parse("\n".join(lines))) if isinstance(n, ast.FunctionDef)]
    long = [f.name for f in functions if f.end_lineno - f.lineno >= LONGEST_FUNCTION]
    assert (long, len(lines) <= LONGEST_FILE) == ([], True)


def test_no_script_imports_the_script_of_another_figure():
    figures = {script.__name__ for script in discover().values()}
    for path in [*SCRIPTS, *(ROOT / "reproduce" / "bench").glob("*.py")]:
        nodes = ast.walk(ast.parse(path.read_text()))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not imported & figures, path.name
