"""Crops, flips and color changes of a training batch against hand-computed values."""

import pytest
import torch

from zfnet.data.images import standardize, to_pixels
from zfnet.training.augment import augment
from zfnet.training.config import Augment


def test_paper_crops_are_four_corners_and_center_with_flips():
    raw = torch.arange(8 * 8, dtype=torch.uint8).view(1, 8, 8, 1).expand(400, 8, 8, 3)
    crops = augment(raw, 6, Augment(crops="paper"), torch.Generator().manual_seed(0))
    levels = (to_pixels(crops)[:, 0] * 255).round().to(torch.int64)
    actual = {tuple(crop.flatten().tolist()) for crop in levels}
    grid = torch.arange(64).view(8, 8)
    expected = {
        tuple(window.flatten().tolist())
        for top, left in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))
        for window in (
            grid[top : top + 6, left : left + 6],
            grid[top : top + 6, left : left + 6].flip(1),
        )
    }
    assert actual == expected


def test_resized_crops_cover_the_requested_share_of_the_image():
    # Brightness is x.
    gradient = torch.linspace(0, 255, 32).to(torch.uint8).view(1, 1, 32, 1).expand(200, 32, 32, 3)
    crops = augment(
        gradient, 16, Augment(crops="resized", scale=(0.5, 0.5)), torch.Generator().manual_seed(0)
    )
    span = (crops[:, 0, 8, -1] - crops[:, 0, 8, 0]) * 0.229  # in [0, 1]
    assert span.abs().mean() == pytest.approx(0.5 * 15 / 16, abs=0.02)
    assert 0.3 < (span < 0).float().mean() < 0.7  # flipped half of the time


def test_color_jitter_applies_saturation_contrast_brightness_and_tint():
    """Compare with the four steps written out, with the same random numbers."""
    raw = torch.randint(
        0, 256, (6, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    options = Augment(crops="paper", flip=False, color=0.4)
    actual = augment(raw, 12, options, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    torch.rand(6, generator=generator)  # the draw for flips
    torch.randint(5, (6,), generator=generator)  # the draw for positions
    saturation, contrast, brightness = 0.4 * (
        torch.rand(3, 6, 1, 1, 1, generator=generator) * 2 - 1
    )
    tint = 0.4 * (torch.rand(6, 3, 1, 1, generator=generator) - 0.5)
    x = standardize(raw.permute(0, 3, 1, 2))
    gray = x.mean(1, keepdim=True)
    x = gray + (1 + saturation) * (x - gray)
    torch.testing.assert_close(actual, (1 + contrast) * x + brightness + tint, rtol=1e-5, atol=1e-5)
    assert actual.is_contiguous(memory_format=torch.channels_last)
