"""Transforms against slicing and rotating arrays, distances against norms, intervals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zfnet
from tests.conftest import random_he
from zfnet.analysis.intervals import bootstrap, difference_interval, mean_interval
from zfnet.analysis.invariance import IDENTITY, SHARE, invariance, r_squared, views
from zfnet.graph import UnknownLayer


@pytest.fixture
def squares():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_transforms_on_the_pixel_grid_equal_slicing(squares):
    """A view of half the square at its original size needs no interpolation."""
    transformed = views(squares, "translation", [-7, 0, 5], share=0.5, size=32)
    assert transformed.shape == (2, 3, 3, 32, 32)
    for i, v in enumerate((-7, 0, 5)):  # after a shift down by v, row r shows row r - v
        torch.testing.assert_close(
            transformed[:, i], squares[:, :, 16 - v : 48 - v, 16:48], rtol=0, atol=1e-5
        )


def test_quarter_turns_are_counterclockwise(squares):
    center = squares[:, :, 16:48, 16:48]
    transformed = views(squares, "rotation", [0, 90, 180, 270, 360], share=0.5, size=32)
    for i in range(5):
        torch.testing.assert_close(
            transformed[:, i], torch.rot90(center, i, (2, 3)), rtol=0, atol=1e-4
        )


def test_scale_two_equals_bilinear_upsampling(squares):
    transformed = views(squares, "scale", [1, 2], share=1.0, size=64)
    torch.testing.assert_close(transformed[:, 0], squares, rtol=0, atol=1e-5)
    expected = torch.nn.functional.interpolate(
        squares[:, :, 15:49, 15:49], scale_factor=2, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(transformed[:, 1], expected[:, :, 2:-2, 2:-2], rtol=0, atol=1e-4)


def test_rotation_by_30_degrees_by_hand(squares):
    """Compute one pixel of the view: row 3, column 20."""
    transformed = views(squares, "rotation", [30], share=0.5, size=32)[0, 0]
    r, c = 3 + 0.5 - 16, 20 + 0.5 - 16
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    # In pixels of the square.
    row, column = (r * cosine + c * sine + 31.5, c * cosine - r * sine + 31.5)
    top, left = int(row), int(column)
    a, b = row - top, column - left
    q = squares[0, :, top : top + 2, left : left + 2]
    expected = (1 - a) * ((1 - b) * q[:, 0, 0] + b * q[:, 0, 1]) + a * (
        (1 - b) * q[:, 1, 0] + b * q[:, 1, 1]
    )
    torch.testing.assert_close(transformed[:, 3, 20], expected, rtol=0, atol=1e-4)


def test_ranges_of_the_paper_stay_inside_the_picture():
    """On a white picture, darker pixels would reveal padding."""
    white = torch.ones(1, 1, 256, 256)
    for family, values in (
        ("translation", [-60, 60]),
        ("scale", [1, 1.8]),
        ("rotation", list(range(0, 360, 5))),
    ):
        assert views(white, family, values, share=SHARE).min() == pytest.approx(1)
    with pytest.raises(
        ValueError, match=r"translation by \[-61.0, 61.0\] extends beyond the picture"
    ):
        views(white, "translation", [-61, 0, 61], share=SHARE)
    with pytest.raises(ValueError, match="extends beyond"):
        views(white, "rotation", [45], share=0.8)


def test_wrong_transforms(squares):
    for family, values, message in (
        ("shear", [1], "'shear' is not a family; available: translation, scale, rotation"),
        ("scale", [0.0], "above 0"), ("rotation", [float("nan")], "finite"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            views(squares, family, values)
    with pytest.raises(ValueError, match="squares"):
        views(squares[:, :, :60], "scale", [1])
    with pytest.raises(ValueError, match="share"):
        views(squares, "scale", [1], share=1.5)


@pytest.fixture(scope="module")
def model():
    return random_he(zfnet.zfnet(6, norm="lrn", channels=(6, 7, 8, 8, 5), fc_units=8, size=64))


def test_identity_has_distance_zero(model):
    squares = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    for family, value in (*IDENTITY.items(), ("rotation", 360.0)):
        f = invariance(model, squares, [1, 2], family, [value], size=64)
        for layer in ("conv1", "fc7"):
            assert f.distance[layer].abs().max() < 1e-5
        torch.testing.assert_close(f.probability[:, 0], f.reference, rtol=1e-4, atol=1e-6)
        assert (f.label[:, 0] == f.reference_label).all()


def test_distances_and_probabilities_equal_single_images(model):
    squares = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    target, values = [0, 5, 3], [-9.0, 4.0, 11.0]
    f = invariance(
        model,
        squares,
        target,
        "translation",
        values,
        layers=("conv1", "conv5", "fc7"),
        share=0.6,
        size=64,
        batch=2,
    )
    assert f.distance["conv5"].shape == f.probability.shape == f.label.shape == (3, 3)
    for n in range(3):
        base = zfnet.trace(
            model, views(squares[n : n + 1], "translation", [0], share=0.6, size=64)[0]
        )
        assert f.reference[n] == pytest.approx(
            float(base.logits.softmax(1)[0, target[n]]), rel=1e-4
        )
        for i, v in enumerate(values):
            t = zfnet.trace(
                model, views(squares[n : n + 1], "translation", [v], share=0.6, size=64)[0]
            )
            for layer in ("conv1", "conv5", "fc7"):
                a, b = base[layer].numpy().ravel(), t[layer].numpy().ravel()
                expected = np.sqrt(((a - b) ** 2).sum()) / np.sqrt((a**2).sum())
                assert float(f.distance[layer][n, i]) == pytest.approx(expected, rel=1e-4)
            assert float(f.probability[n, i]) == pytest.approx(
                float(t.logits.softmax(1)[0, target[n]]), rel=1e-4
            )
            assert f.label[n, i] == t.logits.argmax()


def test_invalid_arguments_are_rejected(model):
    squares = torch.randn(2, 3, 96, 96)
    for target, layers, batch, message in (
        ([0], ("fc7",), 4, "one class per image"), ([0, 6], ("fc7",), 4, "class from 0 to 5"),
        ([0.5, 1.0], ("fc7",), 4, "one class"), ([0, 1], ("fc7",), 0, "batch must be"), ([0, 1], (), 4, "layers not empty"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            invariance(model, squares, target, "scale", [1.2], layers=layers, size=64, batch=batch)
    with pytest.raises(UnknownLayer, match="conv9"):
        invariance(model, squares, [0, 1], "scale", [1.2], layers=("conv9",), size=64)
    with pytest.raises(ValueError, match="not a family"):
        invariance(model, squares, [0, 1], "shear", [1.2], size=64)


def test_r_squared_equals_the_squared_correlation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9), rng.normal(size=(4, 9))
    expected = [np.corrcoef(x, row)[0, 1] ** 2 for row in y]
    np.testing.assert_allclose(
        r_squared(torch.from_numpy(x), torch.from_numpy(y)), expected, rtol=1e-9
    )
    line = torch.tensor([0.0, 1.0, 2.0])
    assert r_squared(line, torch.stack([3 - 2 * line, torch.ones(3)])).tolist() == [1, 1]
    with pytest.raises(ValueError, match="three points"):
        r_squared(torch.ones(3), torch.ones(1, 3))


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e3, 1e3), st.integers(3, 20))
def test_r_squared_of_a_constant_row_is_one(value, count):
    """The mean of equal values rounds, so a constant row is not exactly 0 after centering."""
    x, y = torch.linspace(0, 1, count), torch.full((2, count), value, dtype=torch.float64)
    assert r_squared(x, y).tolist() == [1, 1]


def test_coverage_of_bootstrap_intervals():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        mean, low, high = mean_interval(rng.normal(1.0, 2.0, 40), seed=seed)
        assert low < mean < high
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99
    assert mean_interval(np.array([3.0, 5.0]), np.array([2.0, 2.0]))[0] == 2
    assert mean_interval(np.array([3.0])) == [3]
    assert bootstrap(lambda i: 7.0, 3) == [7, 7]
    assert bootstrap(lambda i: float(len(set(i))) if len(set(i)) > 1 else float("nan"), 2) == [2, 2]
    with pytest.raises(ValueError, match="at least two"):
        bootstrap(lambda i: 0.0, 1)
    with pytest.raises(ValueError, match="finite for no draw"):
        bootstrap(lambda i: float("nan"), 3)


def test_difference_interval_equals_the_normal_approximation():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 0.1, 300), rng.normal(0.4, 0.1, 100)
    mean, low, high = difference_interval(a, b)
    assert mean == pytest.approx(a.mean() - b.mean())
    error = 1.96 * np.hypot(a.std() / 300**0.5, b.std() / 100**0.5)
    assert [mean - low, high - mean] == pytest.approx([error, error], rel=0.15)
    assert difference_interval(a, b, (a, 2 * b))[0] == pytest.approx(0.5)
    assert difference_interval(a, b[:1]) == pytest.approx([a.mean() - b[0]])
