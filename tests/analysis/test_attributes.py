"""Attributes against hand-computed values, scikit-image and SciPy; bins against counting."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from skimage.filters import laplace

from zfnet.analysis.attributes import (
    ATTRIBUTES,
    accuracy_by_quantile,
    brightness,
    colorfulness,
    contrast,
    luma,
    sharpness,
)
from zfnet.analysis.intervals import wilson


def images(n=3, seed=0):
    return torch.rand(n, 3, 17, 23, generator=torch.Generator().manual_seed(seed))


def flat(r, g, b):
    return torch.tensor([r, g, b]).view(1, 3, 1, 1).expand(1, 3, 8, 8)


def test_flat_images_by_hand():
    assert float(brightness(flat(1.0, 0.0, 0.0))) == pytest.approx(0.299)
    assert float(brightness(flat(0.0, 1.0, 0.0))) == pytest.approx(0.587)
    for name in ("contrast", "sharpness"):
        assert float(ATTRIBUTES[name](flat(0.2, 0.4, 0.9))) == pytest.approx(0, abs=1e-6)
    assert float(colorfulness(flat(0.3, 0.3, 0.3))) == pytest.approx(0, abs=1e-4)
    # For red, rg = 255 and yb = 127.5 without deviation: 0.3 times their norm.
    assert float(colorfulness(flat(1.0, 0.0, 0.0))) == pytest.approx(
        0.3 * np.hypot(255, 127.5), rel=1e-5
    )


def test_stripes_by_hand():
    x = torch.zeros(1, 3, 8, 8)
    x[:, :, :, ::2] = 1
    assert float(brightness(x)) == pytest.approx(0.5)
    assert float(contrast(x)) == pytest.approx(0.5)
    # The Laplacian alternates between +2 and -2; divide its deviation by a contrast of 0.5.
    assert float(sharpness(x)) == pytest.approx(4, rel=1e-5)
    colors = torch.zeros(1, 3, 8, 8)
    colors[:, 0, :, ::2], colors[:, 2, :, 1::2] = 1, 1  # red and blue
    # rg is 255 and 0: mean and deviation 127.5. yb is 127.5 and -255: mean -63.75, deviation 191.25.
    expected = np.hypot(127.5, 191.25) + 0.3 * np.hypot(127.5, 63.75)
    assert float(colorfulness(colors)) == pytest.approx(expected, rel=1e-5)


def test_contrast_and_sharpness_equal_scikit_image():
    x = images()
    for image, gray, edge, contrast_value in zip(
        x, luma(x), sharpness(x), contrast(x), strict=True
    ):
        array = image.permute(1, 2, 0).double().numpy()
        by_hand = array @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(gray, by_hand, atol=1e-6)
        assert float(contrast_value) == pytest.approx(by_hand.std(), rel=1e-5)
        interior = laplace(by_hand)[1:-1, 1:-1]
        assert float(edge) == pytest.approx(interior.std() / by_hand.std(), rel=1e-5)


def test_blurring_lowers_sharpness_and_fading_does_not():
    x = images(4)
    soft = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    assert (sharpness(soft) < 0.7 * sharpness(x)).all()
    torch.testing.assert_close(sharpness(0.2 * x + 0.4), sharpness(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_images_outside_the_range_are_rejected(name):
    for images in (
        torch.full((1, 3, 4, 4), 1.5),
        torch.zeros(1, 1, 4, 4),
        torch.zeros(3, 4, 4),
        torch.zeros(1, 3, 4, 4).byte(),
        torch.full((1, 3, 4, 4), torch.nan),
        torch.zeros(0, 3, 4, 4),
    ):
        with pytest.raises(ValueError, match="RGB images"):
            ATTRIBUTES[name](images)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (1, 2), (13, 200), (999, 1000)])
def test_wilson_equals_scipy(successes, n):
    for level in (0.95, 0.8):
        expected = binomtest(successes, n).proportion_ci(level, "wilson")
        assert wilson(successes, n, level=level) == pytest.approx(
            [expected.low, expected.high], abs=1e-9
        )


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_rejects_wrong_counts(successes, n):
    with pytest.raises(ValueError, match="successes among n >= 1 images"):
        wilson(successes, n)


def test_bins_have_equal_counts():
    rng = np.random.default_rng(0)
    values, correct = rng.normal(size=1000), rng.random(1000) < 0.3
    result = accuracy_by_quantile(values, correct, 4)
    assert result.count.tolist() == [250] * 4
    order = np.argsort(values)
    assert result.share.tolist() == pytest.approx(
        [correct[part].mean() for part in np.split(order, 4)]
    )
    for share, (low, high), part in zip(
        result.share, result.interval, np.split(order, 4), strict=True
    ):
        assert [low, high] == pytest.approx(wilson(int(correct[part].sum()), 250))
        assert low < share < high
    assert result.difference[0] == pytest.approx(result.share[-1] - result.share[0])


@pytest.mark.parametrize(("n", "bins"), [(11, 5), (51, 5), (7, 3), (100, 7)])
def test_counts_of_bins_differ_by_at_most_one(n, bins):
    values = np.random.default_rng(n).permutation(n).astype(float)
    count = accuracy_by_quantile(values, values > 2, bins).count
    assert len(count) == bins
    assert count.max() - count.min() <= 1


def test_newcombe_interval_of_a_difference():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 = 0.2 with (0.0524, 0.3339)
    values = np.repeat([0.0, 1.0], [80, 70])
    correct = np.r_[np.arange(80) < 48, np.arange(70) < 56]
    result = accuracy_by_quantile(values, correct, 2)
    assert result.count.tolist() == [80, 70]
    assert result.difference == pytest.approx([0.2, 0.0524, 0.3339], abs=1e-4)


def test_equal_values_share_a_bin():
    values = np.array([40] * 95 + [300, 500, 800, 900, 1300])
    result = accuracy_by_quantile(values, np.arange(100) >= 90, 5)
    assert result.count.tolist() == [95, 5]
    assert result.share.tolist() == [5 / 95, 1]
    with pytest.raises(ValueError, match="all values are equal"):
        accuracy_by_quantile(np.ones(5), np.ones(5))
    with pytest.raises(ValueError, match="one finite value"):
        accuracy_by_quantile(np.array([1.0, np.nan]), np.ones(2))
    for values, bins in ((np.arange(4.0), 1), (np.empty(0), 5)):
        with pytest.raises(ValueError, match="at least one image and two bins"):
            accuracy_by_quantile(values, np.ones(len(values)), bins)


@pytest.mark.parametrize("size", [(2, 8), (8, 2)])
def test_sharpness_rejects_images_smaller_than_the_laplacian(size):
    with pytest.raises(ValueError, match="at least 3 x 3"):
        sharpness(torch.rand(1, 3, *size))
