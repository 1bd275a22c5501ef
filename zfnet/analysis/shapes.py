"""Shape descriptors of digits: slant, thickness, hole area, verticality, curvature of the top.

All functions take gray images (N, H, W) in [0, 1] with bright ink on black, and return (N,) float32
values, NaN for an image without ink. They measure gray edges directly, without an outline or a
skeleton. Only `hole_area` and `curved_top` threshold the ink.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

INK = 0.5  # pixels of at least this brightness are ink, where a threshold is needed


def slant(images: Tensor) -> Tensor:
    r"""Return the angle by which a digit leans to the right.

    $\arctan(-\mu_{11} / \mu_{02})$ with the central moments $\mu_{11} = \sum I (x - \bar x)(y -
    \bar y)$ and $\mu_{02} = \sum I (y - \bar y)^2$, where y points down. A shear by this angle
    makes the digit upright ("deslanting", LeCun et al. 1998).

    Args:
        images: Gray images (N, H, W) in [0, 1].

    Returns:
        Degrees from the vertical (N,); negative to the left.

    Raises:
        ValueError: If images are not gray in [0, 1].

    Example:
        >>> slant(torch.eye(9).flip(1)[None])  # a slash
        tensor([45.])
    """
    check_gray(images)
    rows, columns = (
        torch.arange(n, dtype=images.dtype, device=images.device) for n in images.shape[1:]
    )
    ink = images.sum((1, 2))
    y = rows - ((images.sum(2) @ rows) / ink)[:, None]  # (N, H)
    x = columns - ((images.sum(1) @ columns) / ink)[:, None]  # (N, W)
    mu11 = torch.einsum("nhw,nh,nw->n", images, y, x)
    mu02 = (images.sum(2) * y * y).sum(1)
    return torch.rad2deg(torch.atan(-mu11 / mu02))


def thickness(images: Tensor) -> Tensor:
    r"""Return the mean width of the strokes: twice the ink over the length of its edges.

    $2 \sum I / \sum |\nabla I|$. A stroke of width t and length L has the area tL and edges of
    about 2L. The total variation is the mean length of the edges over all thresholds (coarea
    formula), so gray edges need no threshold. Forward differences see both edges of a line one
    pixel wide.

    The ends of a stroke are edges too: a straight stroke measures t / (1 + t / L). Apart from that,
    the error is below 10 % from a width of two pixels on. Thinner strokes are overestimated by up
    to a third.

    Args:
        images: Gray images (N, H, W) in [0, 1].

    Returns:
        Widths (N,), in pixels.

    Raises:
        ValueError: If images are not gray in [0, 1].

    Example:
        >>> thickness(torch.ones(1, 20, 20)).round()  # t / (1 + t / L) with t = L = 20
        tensor([10.])
    """
    check_gray(images)
    down, right = F.pad(images, (0, 0, 1, 1)).diff(dim=1), F.pad(images, (1, 1)).diff(dim=2)
    # The first row and column of differences have no partner in the other direction.
    inner = torch.hypot(down[:, 1:], right[:, :, 1:]).sum((1, 2))
    edge = inner + down[:, 0].abs().sum(1) + right[:, :, 0].abs().sum(1)
    return 2 * images.sum((1, 2)) / edge


def hole_area(images: Tensor) -> Tensor:
    """Return the number of background pixels that are enclosed by ink.

    A pixel is enclosed if no 4-connected path of background leads to the border, so a diagonal line
    of ink is closed.

    Args:
        images: Gray images (N, H, W) in [0, 1].

    Returns:
        Areas (N,), in pixels.

    Raises:
        ValueError: If images are not gray in [0, 1].

    Example:
        >>> image = torch.ones(1, 3, 3)
        >>> image[0, 1, 1] = 0
        >>> hole_area(image)
        tensor([1.])
    """
    check_gray(images)
    background = F.pad(images, (1, 1, 1, 1)) < INK
    outside = torch.zeros_like(background)
    outside[:, 0] = True  # the padding around the image
    while True:  # flood fill
        grown = outside.clone()
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown[:, :, 1:] |= outside[:, :, :-1]
        grown[:, :, :-1] |= outside[:, :, 1:]
        grown &= background
        if torch.equal(grown, outside):
            break
        outside = grown
    blank = ~(images >= INK).flatten(1).any(1)
    return torch.where(blank, torch.nan, (background & ~outside).sum((1, 2)).float())


def verticality(images: Tensor) -> Tensor:
    r"""Return the share of vertical edges.

    $\sum (\partial_x I)^2 / \sum |\nabla I|^2$ with central differences: 1 for upright strokes, 0
    for level ones, 1/2 for a circle.

    Args:
        images: Gray images (N, H, W) in [0, 1].

    Returns:
        Shares (N,) in [0, 1].

    Raises:
        ValueError: If images are not gray in [0, 1].

    Example:
        >>> verticality(torch.ones(1, 8, 8))
        tensor([0.5000])
    """
    check_gray(images)
    x = F.pad(images, (1, 1, 1, 1))
    horizontal = (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]).square().sum((1, 2))
    vertical = (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]).square().sum((1, 2))
    return horizontal / (horizontal + vertical)


def curved_top(images: Tensor) -> Tensor:
    r"""Return the curvature of a digit's top: the drop of its contour from the middle to the ends.

    The parabola $y = a + b u + c u^2$ is fitted to the topmost ink of each column, with u from -1
    to 1. Columns whose topmost ink is in the lower half of the digit are left out. The result is
    $2 c / \text{height}$: the drop in half heights. A flat or slanted bar has 0, a ring about 0.7,
    and an open top, such as that of a 4, a negative value.

    Args:
        images: Gray images (N, H, W) in [0, 1].

    Returns:
        Curvatures (N,); NaN if fewer than three columns remain.

    Raises:
        ValueError: If images are not gray in [0, 1].

    Example:
        >>> curved_top(torch.ones(1, 5, 5)).abs() < 1e-5
        tensor([True])
    """
    check_gray(images)
    values = [_curvature(ink) for ink in images >= INK]
    return torch.tensor(values, dtype=torch.float32, device=images.device)


def _curvature(ink: Tensor) -> float:
    """Return the curvature of the top of one image's ink (H, W), bool."""
    rows = ink.any(1).nonzero()[:, 0]
    if not len(rows):
        return torch.nan
    top, height = int(rows[0]), int(rows[-1] - rows[0]) + 1
    topmost = ink.int().argmax(0)  # (W,)
    columns = (ink.any(0) & (topmost < top + height / 2)).nonzero()[:, 0]
    if len(columns) < 3:
        return torch.nan
    u = 2 * (columns - columns[0]) / (columns[-1] - columns[0]) - 1
    powers = torch.stack([torch.ones_like(u), u, u * u], 1)
    fit = torch.linalg.lstsq(powers, topmost[columns, None].to(powers)).solution
    return 2 * float(fit[2]) / height


def check_gray(images: Tensor) -> None:
    """Raise ValueError unless images are gray (N, H, W) in [0, 1]."""
    is_gray = images.ndim == 3 and images.is_floating_point()
    if not is_gray or (images.numel() and not 0 <= images.min() <= images.max() <= 1):
        raise ValueError(
            f"expected gray images (N, H, W) of floats in [0, 1], "
            f"got {tuple(images.shape)} {images.dtype}"
        )
