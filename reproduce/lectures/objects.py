"""Where the object of a photograph is: annotated boxes, and an outline that colours and edges draw inside them.

ImageNet-65k has no boxes. Those of `objects.yaml` were drawn by eye for this project; outlines are computed, and those that the
file marks were looked at. The network has no part in them, so that what is said of it is not said by it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from scipy.ndimage import binary_fill_holes, gaussian_filter, label
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve
from skimage.color import rgb2lab
from skimage.draw import polygon2mask

import zfnet
from reproduce.core.annotations import find_annotated
from reproduce.core.figure import SAMPLES
from zfnet.plot import photograph

ANNOTATED = Path(__file__).with_name("objects.yaml")
BINS = 12  # of each of Lab's three axes
LOW, RANGE = (
    np.array([0, 0.6, 0.6]),
    np.array([1, 1.2, 1.2]),
)  # which holds nearly all colours of photographs
ROUNDS = 4
EDGE = (
    3.0  # how sharply a difference of colour separates neighbours, over the image's mean difference
)
TRUST = 0.02  # in a pixel's own colour, against that in its neighbours
SURE = 5.0  # outside the box


def outline(pixels: np.ndarray, box: tuple[int, int, int, int] | list[int]) -> np.ndarray:
    r"""The object in a box (top, left, bottom, right) of an RGB image (H, W, 3) in [0, 1]: a mask (H, W) bool.

    Colours of the object and of the ground are histograms $h_1, h_0$ in Lab, smoothed; at first the object's counts more the
    nearer to the box's centre, and all outside the box is ground (as in GrabCut, Rother et al. 2004). With the posterior
    $u = h_1 / (h_1 + h_0)$ as a prior of weight $\gamma$, the mask's probabilities p solve $(L + \gamma) p = \gamma u$, L the
    Laplacian of the pixels' grid, whose weights $e^{-\beta \|c_i - c_j\|^2}$ are small across edges: the random walker with
    priors (Grady 2005). p then weighs the histograms anew. The mask is the largest part of p > 0.5, its holes filled.
    """
    height, width = pixels.shape[:2]
    lab = rgb2lab(pixels) / 100
    scaled = ((lab + LOW) / RANGE * BINS).astype(int).clip(0, BINS - 1)
    bins = (scaled @ [BINS * BINS, BINS, 1]).ravel()
    top, left, bottom, right = box
    row, column = np.mgrid[:height, :width]
    inside = ((row >= top) & (row < bottom) & (column >= left) & (column < right)).ravel()
    off = ((row - (top + bottom - 1) / 2) / (bottom - top) * 2) ** 2 + (
        (column - (left + right - 1) / 2) / (right - left) * 2
    ) ** 2
    p, laplacian = np.where(inside, np.exp(-off.ravel()), 0), grid_laplacian(lab)
    weight = np.where(inside, TRUST, SURE)
    for _ in range(ROUNDS):
        ratio = (histogram(bins, p) - histogram(bins, 1 - p))[bins].clip(-6, 6)
        prior = np.where(inside, 1 / (1 + np.exp(-ratio)), 0)
        p = np.asarray(spsolve((laplacian + diags(weight)).tocsc(), weight * prior))
    parts, count = label((p > 0.5).reshape(height, width))
    if not count:
        return inside.reshape(height, width)
    return np.asarray(binary_fill_holes(parts == 1 + np.bincount(parts.ravel())[1:].argmax()))


def histogram(bins: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The logarithm of the smoothed, weighted frequencies of the colours: (BINS ** 3,)."""
    counts = np.bincount(bins, weight, minlength=BINS**3).reshape(BINS, BINS, BINS)
    counts = gaussian_filter(counts, 0.8) + 1e-3 * counts.mean() + 1e-9
    return np.log(counts / counts.sum()).ravel()


def grid_laplacian(colours: np.ndarray):
    """The Laplacian of the pixels' grid, each joined to four neighbours: sparse (H W, H W)."""
    height, width = colours.shape[:2]
    number = np.arange(height * width).reshape(height, width)
    i = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
    j = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
    flat = colours.reshape(-1, colours.shape[-1])
    apart = ((flat[i] - flat[j]) ** 2).sum(1)
    weight = np.exp(-EDGE * apart / max(apart.mean(), 1e-12)) + 1e-4
    joined = coo_matrix(
        (np.r_[weight, weight], (np.r_[i, j], np.r_[j, i])), (height * width,) * 2
    ).tocsr()
    return diags(np.asarray(joined.sum(1)).ravel()) - joined


def framed(pixels: np.ndarray, side: int) -> np.ndarray:
    """The outline of what stands inside a margin of a twentieth of a square image (S, S, 3), found at `side`: (S, S) bool."""
    size, margin = len(pixels), round(0.05 * side)
    small = pixels.reshape(side, size // side, side, size // side, 3).mean((1, 3))
    return np.kron(
        outline(small, (margin, margin, side - margin, side - margin)), np.ones((size // side,) * 2)
    ).astype(bool)


def annotations() -> dict:
    return yaml.safe_load(ANNOTATED.read_text())


def outlined(
    ctx, photographs: Sequence[str], side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray, str]:
    """The corpus's images whose outline was accepted, of the samples these photographs with the classes that the network says.

    x (N, 3, H, W), classes (N,), masks (N, H, W) found at `side`; how well those that were also drawn by eye agree (M,); a word
    on images that are absent.
    """
    marks, agreed = annotations(), []
    if ctx.corpus == SAMPLES:
        x, names, missing = (
            torch.cat([zfnet.preprocess(zfnet.photograph(name)) for name in photographs]),
            photographs,
            "",
        )
        target = ctx.model(x.to(ctx.device)).argmax(1)
    else:
        places, missing = find_annotated(ctx, marks["outlines"])
        if not places:
            return torch.empty(0), torch.empty(0), torch.empty(0), np.empty(0), missing
        names, x = list(places), ctx.images.batch(list(places.values()))
        target = torch.from_numpy(ctx.images.labels[list(places.values())]).to(ctx.device)
    masks = []
    for name, pixels in ctx.progress(
        zip(names, photograph(x), strict=True), total=len(x), desc="outlines"
    ):
        masks.append(framed(pixels, side))
        if name in marks["polygons"]:
            agreed.append(agreement(pixels, marks["polygons"][name], masks[-1]))
    return (
        x.to(ctx.device),
        target,
        torch.from_numpy(np.stack(masks)).to(ctx.device),
        np.array(agreed),
        missing,
    )


def agreement(pixels: np.ndarray, polygon: list[list[int]], mask: np.ndarray) -> float:
    """How well a mask agrees with a polygon drawn by eye, [row, column] points in the same view: intersection over union."""
    drawn = polygon2mask(pixels.shape[:2], np.array(polygon))
    return float((mask & drawn).sum() / (mask | drawn).sum())
