"""Figures have the project's style, independent of the user's matplotlib configuration."""

import io
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zfnet import plot

SKIPPED = {"backend", "interactive", "backend_fallback", "webagg.port", "webagg.address"}
# What a user may have, and breaks pictures or needs another program.
HOSTILE = {
    "image.origin": "lower", "text.usetex": True, "savefig.dpi": 33.0, "savefig.bbox": "tight",
    "savefig.transparent": True, "savefig.format": "pdf", "axes.facecolor": "black", "font.size": 30.0,
    "text.color": "white", "image.cmap": "gray", "figure.autolayout": True, "axes.titlelocation": "left",
}  # fmt: skip


def other(name, value, share):
    """Another value that the parameter takes, or None."""
    if isinstance(value, bool):
        candidate = not value
    elif isinstance(value, (int, float)):
        candidate = type(value)(value * (1 + share) + 1)
    elif isinstance(value, str) and "color" in name:
        candidate = "red"
    else:
        return None
    try:
        with warnings.catch_warnings(), mpl.rc_context({name: candidate}):
            warnings.simplefilter("ignore")
            return candidate
    except (ValueError, KeyError, RuntimeError):
        return None


def pixels(figure):
    """The saved picture as an array."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return np.asarray(Image.open(file).convert("RGB"))


def attribution():
    maps = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    return plot.attribution_figure(maps.expand(1, 3, 8, 8), maps, "$5 and 100 %", "a_b")


def occlusion():
    labels = np.arange(4).reshape(2, 2)
    return plot.occlusion_figure(
        torch.zeros(1, 3, 8, 8), {"logit": labels / 4}, labels, "abcd", 4, 4, "a_b"
    )


@pytest.fixture(scope="module")
def expected():
    with mpl.rc_context():
        mpl.rcdefaults()
        return {draw: pixels(draw()) for draw in (attribution, occlusion)}


@pytest.mark.parametrize("draw", [attribution, occlusion])
def test_hostile_parameters_have_no_effect(draw, expected):
    with mpl.rc_context(HOSTILE):
        assert np.array_equal(pixels(draw()), expected[draw])
        assert mpl.rcParams["image.origin"] == "lower"  # the user's own figures keep theirs


@settings(max_examples=2, deadline=None)
@given(st.floats(0, 2), st.integers(0, 99))
def test_no_parameter_has_an_effect(expected, share, seed):
    """All parameters at other values, but for a random tenth."""
    rng = np.random.default_rng(seed)
    names = [name for name in mpl.rcParams if name not in SKIPPED and not name.startswith("_")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed = {
            name: value
            for name in names
            if rng.random() > 0.1 and (value := other(name, mpl.rcParams[name], share)) is not None
        }
        with mpl.rc_context(changed):
            assert np.array_equal(pixels(attribution()), expected[attribution])
    assert len(changed) > 100


def test_pictures_in_foreign_axes_are_upright():
    """A notebook's own figure keeps its style, and shows images from the top."""
    with mpl.rc_context({"image.origin": "lower"}):
        axes = mpl.figure.Figure().subplots(1, 2)
        plot.show(axes[0], np.zeros((4, 4, 3)))
        plot.heat_map(axes[1], np.arange(4.0).reshape(2, 2))
    assert all(axis.images[0].origin == "upper" for axis in axes)
