"""What a drawn digit looks like, as numbers: slant, stroke thickness, hole area, verticality, and how round its top is.

All take grey images (N, H, W) in [0, 1], bright ink on black, and return (N,) float32: NaN for an image without ink. They
need no outline or skeleton: grey edges are measured as they are, and only holes and tops ask which pixels are ink.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

INK = 0.5  # a pixel at least this bright is ink, where pixels are counted


def slant(images: Tensor) -> Tensor:
    r"""How far a digit leans to the right, in degrees from the vertical; negative to the left.

    $\arctan(-\mu_{11} / \mu_{02})$ with the central moments $\mu_{11} = \sum I (x - \bar x)(y - \bar y)$ and
    $\mu_{02} = \sum I (y - \bar y)^2$, rows y counted downwards: the shear that would set the digit upright (LeCun et al. 1998,
    "deslanting"). A shape without a lean of its own, sheared by an angle, has that angle.
    """
    images = _checked(images)
    rows, columns = (
        torch.arange(n, dtype=images.dtype, device=images.device) for n in images.shape[1:]
    )
    total = images.sum((1, 2))
    y = rows - ((images.sum(2) @ rows) / total)[:, None]  # (N, H)
    x = columns - ((images.sum(1) @ columns) / total)[:, None]  # (N, W)
    both = torch.einsum("nhw,nh,nw->n", images, y, x)
    return torch.rad2deg(torch.atan(-both / (images.sum(2) * y * y).sum(1)))


def thickness(images: Tensor) -> Tensor:
    r"""The mean width of the strokes in pixels: twice the ink over the length of its edge.

    $2 \sum I / \sum |\nabla I|$. A stroke of width t and length L has an area of tL and an edge of about 2L; a total variation
    is the mean length of the edges at all brightnesses (the coarea formula), so that grey edges need no threshold.
    Differences are forward ones, which see both edges of a line one pixel wide. The ends of a stroke are
    edges too: a straight one reads t / (1 + t / L). That aside, to 10 % from a width of two pixels on; a thinner stroke
    that lies across pixels is too faint for its edges, and is overestimated by up to a third.
    """
    images = _checked(images)
    down, right = F.pad(images, (0, 0, 1, 1)).diff(dim=1), F.pad(images, (1, 1)).diff(dim=2)
    edge = (
        torch.hypot(down[:, 1:], right[:, :, 1:]).sum((1, 2))
        + down[:, 0].abs().sum(1)
        + right[:, :, 0].abs().sum(1)
    )
    return 2 * images.sum((1, 2)) / edge


def hole_area(images: Tensor) -> Tensor:
    """How many pixels of paper are enclosed by ink: paper that no path from the border reaches.

    A path goes up, down, left and right, so that a diagonal line of ink is closed.
    """
    images = _checked(images)
    paper = F.pad(images, (1, 1, 1, 1)) < INK
    reached = torch.zeros_like(paper)
    reached[:, 0] = True  # the frame around the image
    while True:
        grown = reached.clone()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        grown &= paper
        if torch.equal(grown, reached):
            break
        reached = grown
    return torch.where(_blank(images), torch.nan, (paper & ~reached).sum((1, 2)).float())


def verticality(images: Tensor) -> Tensor:
    r"""The share of the edges that run up and down: 1 for upright strokes, 0 for level ones, 1/2 for a circle.

    $\sum (\partial_x I)^2 / \sum |\nabla I|^2$ with central differences.
    """
    images = F.pad(_checked(images), (1, 1, 1, 1))
    across = (images[:, 1:-1, 2:] - images[:, 1:-1, :-2]).square().sum((1, 2))
    down = (images[:, 2:, 1:-1] - images[:, :-2, 1:-1]).square().sum((1, 2))
    return across / (across + down)


def curved_top(images: Tensor) -> Tensor:
    r"""How much the top is bent: what its contour falls from the middle to the ends, in halves of the digit's height.

    The parabola $y = a + b u + c u^2$ is fitted to the first ink from above in each column, in the columns where that lies in
    the upper half of the digit; u goes from -1 to 1 across them, and the result is $2 c / \text{height}$. A flat or slanted
    bar has 0, an arch more (a ring about 0.7), an open top (4, a cup) less. NaN below three columns. A roof counts as an arch.
    """
    images = _checked(images)
    ink = images >= INK
    rows = torch.arange(images.shape[1], device=images.device)
    found = []
    for each in ink:
        columns = each.any(0)
        first = each.int().argmax(0)  # (W,) the row of the first ink
        filled = rows[each.any(1)]
        if not len(filled):
            found.append(torch.nan)
            continue
        top, height = int(filled[0]), int(filled[-1] - filled[0]) + 1
        upper = (columns & (first < top + height / 2)).nonzero()[:, 0]
        if len(upper) < 3:
            found.append(torch.nan)
            continue
        u = 2 * (upper - upper[0]) / (upper[-1] - upper[0]) - 1
        terms = torch.stack([torch.ones_like(u), u, u * u], 1)
        fit = torch.linalg.lstsq(terms, first[upper, None].to(terms)).solution
        found.append(2 * float(fit[2]) / height)
    return torch.tensor(found, dtype=torch.float32, device=images.device)


def _blank(images: Tensor) -> Tensor:
    return (images >= INK).flatten(1).any(1).logical_not()


def _checked(images: Tensor) -> Tensor:
    """Raises ValueError where images are not grey (N, H, W) in [0, 1]."""
    if (
        images.ndim != 3
        or not images.is_floating_point()
        or (images.numel() and not 0 <= images.min() <= images.max() <= 1)
    ):
        raise ValueError(
            f"expected grey images (N, H, W), floats in [0, 1], got {tuple(images.shape)} {images.dtype}"
        )
    return images
