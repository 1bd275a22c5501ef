"""Where the object of a photograph is: annotated boxes, and outlines computed inside a box.

ImageNet-65k has no boxes, so those of `objects.yaml` were drawn by eye for this project. Outlines
are computed from colors and edges, and the file lists those that were accepted by eye. The network
has no part in either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES
from zfnet.plot import photograph

ANNOTATED = Path(__file__).with_name("objects.yaml")
BINS = 12  # per axis of Lab
LAB_OFFSET, LAB_RANGE = np.array([0, 0.6, 0.6]), np.array([1, 1.2, 1.2])  # of most photographs
ROUNDS = 4
EDGE = 3.0  # how strongly a color difference separates neighbors, relative to the mean difference
PRIOR_INSIDE = 0.02  # weight of a pixel's own color against its neighbors, inside the box
PRIOR_OUTSIDE = 5.0


class OutlinedImages(NamedTuple):
    """Images with the outlines of their objects.

    Attributes:
        x: Network inputs (N, 3, H, W).
        target: Classes (N,).
        masks: Outlines (N, H, W) bool.
        agreement: Intersection over union with the polygons drawn by eye, of images that have one.
        missing: A sentence on annotated images that the corpus lacks; empty without any.
    """

    x: torch.Tensor
    target: torch.Tensor
    masks: torch.Tensor
    agreement: np.ndarray
    missing: str


def outline(pixels: np.ndarray, box: tuple[int, int, int, int] | list[int]) -> np.ndarray:
    r"""Segment the object in a box.

    The colors of object and background are histograms $h_1, h_0$ in Lab, smoothed. At first,
    pixels near the center of the box count as object, and all outside the box is background, as in
    GrabCut (Rother et al. 2004). With the posterior $u = h_1 / (h_1 + h_0)$ as a prior of weight
    $\gamma$, the probabilities p solve $(L + \gamma) p = \gamma u$. L is the Laplacian of the pixel
    grid, with weights $e^{-\beta \|c_i - c_j\|^2}$ that are small across edges: the random walker
    with priors (Grady 2005). Then p weights the histograms of the next round.

    Args:
        pixels: An RGB image (H, W, 3) in [0, 1].
        box: (top, left, bottom, right).

    Returns:
        The largest component of p > 0.5 with its holes filled, (H, W) bool.
    """
    height, width = pixels.shape[:2]
    lab = rgb2lab(pixels) / 100
    levels = ((lab + LAB_OFFSET) / LAB_RANGE * BINS).astype(int).clip(0, BINS - 1)
    bins = (levels @ [BINS * BINS, BINS, 1]).ravel()
    top, left, bottom, right = box
    row, column = np.mgrid[:height, :width]
    inside = ((row >= top) & (row < bottom) & (column >= left) & (column < right)).ravel()
    down = (row - (top + bottom - 1) / 2) / (bottom - top) * 2
    across = (column - (left + right - 1) / 2) / (right - left) * 2
    p = np.where(inside, np.exp(-(down**2 + across**2).ravel()), 0)
    laplacian, weight = grid_laplacian(lab), np.where(inside, PRIOR_INSIDE, PRIOR_OUTSIDE)
    for _ in range(ROUNDS):
        ratio = (log_histogram(bins, p) - log_histogram(bins, 1 - p))[bins].clip(-6, 6)
        prior = np.where(inside, 1 / (1 + np.exp(-ratio)), 0)
        p = np.asarray(spsolve((laplacian + diags(weight)).tocsc(), weight * prior))
    mask = (p > 0.5).reshape(height, width)
    components, count = label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    if not count:
        return inside.reshape(height, width)
    largest = 1 + np.bincount(components.ravel())[1:].argmax()
    return np.asarray(binary_fill_holes(components == largest))


def log_histogram(bins: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The logarithm of the smoothed and weighted color frequencies, (BINS ** 3,)."""
    counts = np.bincount(bins, weight, minlength=BINS**3).reshape(BINS, BINS, BINS)
    counts = gaussian_filter(counts, 0.8) + 1e-3 * counts.mean() + 1e-9
    return np.log(counts / counts.sum()).ravel()


def grid_laplacian(colors: np.ndarray) -> Any:
    """The Laplacian of the pixel grid with four neighbors, sparse (H W, H W)."""
    height, width = colors.shape[:2]
    number = np.arange(height * width).reshape(height, width)
    i = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
    j = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
    flat = colors.reshape(-1, colors.shape[-1])
    distance = ((flat[i] - flat[j]) ** 2).sum(1)
    weight = np.exp(-EDGE * distance / max(distance.mean(), 1e-12)) + 1e-4
    pairs = (np.r_[i, j], np.r_[j, i])
    adjacency = coo_matrix((np.r_[weight, weight], pairs), (height * width,) * 2).tocsr()
    return diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency


def outline_centered(pixels: np.ndarray, side: int) -> np.ndarray:
    """The outline of a centered object, which is found at a lower resolution.

    Args:
        pixels: A square image (S, S, 3).
        side: The lower resolution. The box leaves a margin of 5 % of it.

    Returns:
        A mask (S, S) bool.
    """
    size, margin = len(pixels), round(0.05 * side)
    small = pixels.reshape(side, size // side, side, size // side, 3).mean((1, 3))
    mask = outline(small, (margin, margin, side - margin, side - margin))
    return np.kron(mask, np.ones((size // side,) * 2)).astype(bool)


def object_annotations() -> dict[str, Any]:
    """The contents of `objects.yaml`."""
    return yaml.safe_load(ANNOTATED.read_text())


def outlined_images(ctx: Context, photographs: Sequence[str], side: int) -> OutlinedImages:
    """The images of the corpus whose outline was accepted by eye.

    For the sample photographs, the classes are the network's predictions.

    Args:
        ctx: The network and the corpus.
        photographs: The sample photographs to use.
        side: Resolution of the outlines.
    """
    annotations = object_annotations()
    if ctx.corpus == SAMPLES:
        names, missing = list(photographs), ""
        x = torch.cat([zfnet.preprocess(zfnet.photograph(name)) for name in names])
        target = ctx.model(x.to(ctx.device)).argmax(1)
    else:
        rows, missing = find_annotated(ctx, annotations["outlines"])
        names = list(rows)
        if not names:
            empty = torch.empty(0)
            return OutlinedImages(empty, empty, empty, np.empty(0), missing)
        x = ctx.images.batch(list(rows.values()))
        target = torch.from_numpy(ctx.images.labels[list(rows.values())]).to(ctx.device)
    masks, agreement, polygons = [], [], annotations["polygons"]
    pairs = zip(names, photograph(x), strict=True)
    for name, pixels in ctx.progress(pairs, total=len(x), desc="outlines"):
        masks.append(outline_centered(pixels, side))
        if name in polygons:
            agreement.append(polygon_overlap(pixels, polygons[name], masks[-1]))
    object_masks = torch.from_numpy(np.stack(masks)).to(ctx.device)
    return OutlinedImages(x.to(ctx.device), target, object_masks, np.array(agreement), missing)


def polygon_overlap(pixels: np.ndarray, polygon: list[list[int]], mask: np.ndarray) -> float:
    """The intersection over union of a mask and a polygon of [row, column] points."""
    drawn = polygon2mask(pixels.shape[:2], np.array(polygon))
    return float((mask & drawn).sum() / (mask | drawn).sum())
