"""A training batch's crops and flips, by hand."""

import pytest
import torch

from zfnet.data.images import standardize, to_pixels
from zfnet.training.augment import augment
from zfnet.training.config import Augment


def test_papers_crops_are_corners_and_centre_with_flips():
    raw = torch.arange(8 * 8, dtype=torch.uint8).view(1, 8, 8, 1).expand(400, 8, 8, 3)
    crops = augment(raw, 6, Augment(crops="paper"), torch.Generator().manual_seed(0))
    values = (to_pixels(crops)[:, 0] * 255).round().to(torch.int64)
    seen = {tuple(v.flatten().tolist()) for v in values}
    grid = torch.arange(64).view(8, 8)
    expected = {
        tuple(c.flatten().tolist())
        for t, l in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))
        for c in (grid[t : t + 6, l : l + 6], grid[t : t + 6, l : l + 6].flip(1))
    }
    assert seen == expected


def test_resized_crops_show_a_part_of_the_image():
    gradient = (
        torch.linspace(0, 255, 32).to(torch.uint8).view(1, 1, 32, 1).expand(200, 32, 32, 3)
    )  # brightness is x
    crops = augment(
        gradient, 16, Augment(crops="resized", scale=(0.5, 0.5)), torch.Generator().manual_seed(0)
    )
    span = (crops[:, 0, 8, -1] - crops[:, 0, 8, 0]) * 0.229  # in [0, 1]
    assert span.abs().mean() == pytest.approx(0.5 * 15 / 16, abs=0.02)
    assert 0.3 < (span < 0).float().mean() < 0.7  # flipped half of the time


def test_colour_is_saturation_then_contrast_brightness_and_tint():
    """One step of the augmentation, against the four written out one after the other, with the same random numbers."""
    raw = torch.randint(
        0, 256, (6, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    options = Augment(crops="paper", flip=False, color=0.4)
    found = augment(raw, 12, options, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    torch.rand(6, generator=generator)  # of the flips
    torch.randint(5, (6,), generator=generator)  # of the places
    saturation, contrast, brightness = 0.4 * (
        torch.rand(3, 6, 1, 1, 1, generator=generator) * 2 - 1
    )
    tint = 0.4 * (torch.rand(6, 3, 1, 1, generator=generator) - 0.5)
    x = standardize(raw.permute(0, 3, 1, 2))
    grey = x.mean(1, keepdim=True)
    x = grey + (1 + saturation) * (x - grey)
    torch.testing.assert_close(found, (1 + contrast) * x + brightness + tint, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
