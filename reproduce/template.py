"""Find a template in an image, at any scale and aspect, also where the image cuts it off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE = 32  # side of the image in the exhaustive search, in pixels
SIDES = tuple(round(4 * 1.25**i) for i in range(12))  # of the template there: 4 to 47 pixels
LARGEST_ASPECT = 3.0
LEAST_OVERLAP = 0.4  # share of the template inside the image
STAGES = ((12, 56, 32, 40), (3, 112, 64, 40))  # candidates, sides of image and template, steps


@dataclass(frozen=True)
class Match:
    """Where a template was found.

    Attributes:
        box: (top, left, bottom, right) as shares of the image's sides; it may leave the image.
        correlation: Of template and box, over the part inside the image, in [-1, 1].
    """

    box: tuple[float, float, float, float]
    correlation: float


def match(template: Tensor, image: Tensor) -> Match:
    """Find the rectangle of an image that looks most like a template, at any scale and aspect.

    An exhaustive search at 32 pixels gives candidates. Gradient ascent on their correlation refines
    the four edges at 56 and 112 pixels.

    Args:
        template: A square gray image (H, H), of a box that was resized to a square.
        image: A square gray image (S, S).
    """
    boxes = _candidates(template, _resize(image, COARSE, COARSE))
    for count, side, grid, steps in STAGES:
        small, view = _resize(template, grid, grid), _resize(image, side, side)
        boxes, correlation = _refine(small, view, boxes[:count], steps)
        order = correlation.argsort(descending=True)
        boxes, correlation = boxes[order], correlation[order]
    top, left, bottom, right = boxes[0].tolist()
    return Match((top, left, bottom, right), float(correlation[0]))


def masked_correlation(template: Tensor, image: Tensor, least_overlap: float) -> Tensor:
    """Correlate a template with an image at all shifts, over the part inside the image.

    Padfield (2012), "Masked object registration in the Fourier domain", here by convolution.

    Args:
        template: (h, w).
        image: (H, W).
        least_overlap: Share of the template that must be inside; elsewhere the result is -1.

    Returns:
        (H + h - 1, W + w - 1). Entry (i, j) has the template's corner at (i - h + 1, j - w + 1).
    """
    h, w = template.shape
    padding = (h - 1, w - 1)
    signals = torch.stack([image, image**2, torch.ones_like(image)])[:, None]  # (3, 1, H, W)
    kernels = torch.stack([template, template**2, torch.ones_like(template)])[:, None]
    sums = F.conv2d(signals, kernels, padding=padding)  # (signal, kernel, rows, columns)
    area = sums[2, 2].clamp_min(1)
    covariance = sums[0, 0] - sums[0, 2] * sums[2, 0] / area
    variance_image = (sums[1, 2] - sums[0, 2] ** 2 / area).clamp_min(1e-6)
    variance_template = (sums[2, 1] - sums[2, 0] ** 2 / area).clamp_min(1e-6)
    correlation = covariance / (variance_image * variance_template).sqrt()
    return torch.where(area >= least_overlap * h * w, correlation.clamp(-1, 1), -1.0)


def _candidates(template: Tensor, image: Tensor) -> Tensor:
    """The best box of each size in an exhaustive search, the best first: (K, 4) as shares."""
    side, found = len(image), []
    for h in SIDES:
        for w in SIDES:
            if max(h, w) > LARGEST_ASPECT * min(h, w):
                continue
            correlation = masked_correlation(_resize(template, h, w), image, LEAST_OVERLAP)
            value, index = correlation.flatten().max(0)
            top, left = divmod(int(index), correlation.shape[1])
            top, left = top - h + 1, left - w + 1
            # Fisher's z: a small template correlates by chance.
            score = float(value.clamp(max=0.999).atanh()) * (h * w) ** 0.5
            found.append((score, (top / side, left / side, (top + h) / side, (left + w) / side)))
    found.sort(reverse=True)
    return torch.tensor([box for _, box in found])


def _refine(template: Tensor, image: Tensor, boxes: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Move the edges of boxes (K, 4) uphill in correlation; returns boxes and correlations (K,)."""
    best_boxes, best = boxes, torch.full((len(boxes),), -1.0)
    with torch.enable_grad():
        edges = boxes.clone().requires_grad_()
        optimizer = torch.optim.Adam([edges], lr=0.5 / len(image))
        for step in range(steps + 1):
            correlation = _correlate(template, image, edges)
            better = correlation.detach() > best
            best_boxes = torch.where(better[:, None], edges.detach(), best_boxes)
            best = torch.where(better, correlation.detach(), best)
            if step < steps:
                optimizer.zero_grad()
                (-correlation.sum()).backward()
                optimizer.step()
    return best_boxes, best


def _correlate(template: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
    """Correlate a template (G, G) with boxes (K, 4) of an image; -1 with little overlap."""
    count, side = len(boxes), len(template)
    center = (torch.arange(side) + 0.5) / side
    y = boxes[:, 0:1] + (boxes[:, 2:3] - boxes[:, 0:1]) * center  # (K, G)
    x = boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2]) * center
    grid = torch.stack(
        [x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1
    )  # (K, G, G, 2)
    inside = ((grid > 0) & (grid < 1)).all(-1).float()
    images = image[None, None].expand(count, 1, -1, -1)
    pixels = F.grid_sample(images, 2 * grid - 1, align_corners=False)[:, 0]
    n = inside.sum((1, 2)).clamp_min(1)

    def centered(values: Tensor) -> Tensor:
        mean = (values * inside).sum((1, 2)) / n
        return (values - mean[:, None, None]) * inside

    a, b = centered(pixels), centered(template.expand(count, -1, -1))
    norms = ((a**2).sum((1, 2)) * (b**2).sum((1, 2))).clamp_min(1e-9).sqrt()
    correlation = (a * b).sum((1, 2)) / norms
    return torch.where(n >= LEAST_OVERLAP * side**2, correlation, -1.0)


def _resize(image: Tensor, rows: int, columns: int) -> Tensor:
    """Resize a gray image (H, W), with antialiasing."""
    size = (rows, columns)
    return F.interpolate(image[None, None], size, mode="bilinear", antialias=True)[0, 0]
