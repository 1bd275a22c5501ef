"""The pictures of Figure 2: blocks of nine patches and projections, a block per feature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import new_page, set_finding
from zfnet.plot import enlarge, filter_image, mosaic, photograph, projection_image, show

PARTS = ("patches", "projections")
COHERENCE = "coherence above that of shuffled tiles, mean cosine"
MEANS = "mean coherence: top nine, shuffled"
TILE = {"conv1": 16, "conv2": 32, "conv3": 44, "conv4": 44, "conv5": 44}  # pixels of a drawn patch
COLUMNS = {"conv1": 12, "conv2": 4, "conv3": 3, "conv4": 3, "conv5": 3}
CONTRAST = {"conv4": 0.98, "conv5": 0.98}  # quantile of |v| that is drawn black or white


def draw_features(result: Result) -> dict[str, Picture]:
    """A picture per layer, and the six features of layer 5 that are most coherent."""
    pictures = {f"layer{layer[4:]}.jpg": _draw_layer(layer, result) for layer in TILE}
    return pictures | {"hero.png": _draw_hero(result.arrays)}


def _draw_layer(layer: str, result: Result) -> Picture:
    arrays, columns, side = result.arrays, COLUMNS[layer], TILE[layer]
    channels = arrays[f"{layer}.channels"]
    figure = new_page(0.75 + 4.1 * _aspect(len(channels), columns, layer == "conv1"))
    left, right = figure.subplots(1, 2)
    if layer == "conv1":
        blocks = enlarge(filter_image(arrays["conv1.filters"]), 3 * side + 2)
        title = f"all {len(channels)} filters"
    else:
        blocks = _blocks(_renderer(layer), arrays[f"{layer}.projections"], side)
        title = f"projections of {len(channels)} random features"
    show_blocks(left, blocks, channels, columns, title, layer)
    patches = _blocks(photograph, arrays[f"{layer}.patches"], side)
    show_blocks(right, patches, channels, columns, "their image patches", layer)
    set_finding(figure, _finding(layer, result.measured))
    return figure


def _aspect(count: int, columns: int, narrow: bool) -> float:
    """Height over width of a panel of blocks with their numbers."""
    return -(-count // columns) / columns * (1.32 if narrow else 1.1)


def _finding(layer: str, measured: dict) -> str:
    """The title: how alike a feature's nine patches and projections are."""
    means = measured[MEANS]
    return f"Layer {layer[4:]}, mean cosine: " + "; ".join(
        "a feature's nine {} {:.2f} (shuffled {:.2f})".format(part, *means[f"{layer}, {part}"])
        for part in PARTS
    )


def _draw_hero(arrays: dict[str, np.ndarray]) -> Picture:
    """Six blocks of layer 5: nine projections and, beside them, their patches."""
    side, columns = 44, 3
    projections = _blocks(_renderer("conv5"), arrays["hero.projections"], side)
    patches = _blocks(photograph, arrays["hero.patches"], side)
    blocks = np.concatenate([projections, patches], 2)  # side by side
    count = len(blocks)
    figure = new_page(0.3 + 1.58 * -(-count // columns))
    axes = figure.subplots()
    show_blocks(axes, blocks, arrays["hero.channels"], columns, "", "conv5", gap=22)
    title = f"{count} features of layer 5: nine projections of each, and their image patches"
    set_finding(figure, title)
    return figure


def _renderer(layer: str) -> Callable[[np.ndarray], np.ndarray]:
    """Projections with the layer's contrast; those of layers 4 and 5 have few strong pixels."""
    return lambda tiles: projection_image(tiles, CONTRAST.get(layer, 0.998))


def _blocks(render: Callable, tiles: np.ndarray, side: int) -> np.ndarray:
    """Nine tiles per feature as a framed 3 x 3 block: (F, 9, 3, R, R) -> (F, S, S, 3)."""
    blocks = [mosaic(enlarge(render(nine), side), 3, gap=1, background=0.6) for nine in tiles]
    # A gray frame, because patches may be white.
    return np.stack(
        [np.pad(block, ((1, 1), (1, 1), (0, 0)), constant_values=0.6) for block in blocks]
    )


def show_blocks(
    axes: Axes,
    blocks: np.ndarray,
    channels: np.ndarray,
    columns: int,
    title: str,
    layer: str,
    gap: int = 16,
) -> None:
    """Show blocks (F, H, W, 3) in rows, each with its channel above, as in the atlas."""
    gap = 24 if layer == "conv1" else gap
    height, width = blocks.shape[1] + gap, blocks.shape[2] + 8
    rows = -(-len(blocks) // columns)
    sheet = np.ones((rows * height, columns * width - 8, 3), np.float32)
    for i, (block, channel) in enumerate(zip(blocks, channels, strict=True)):
        top, left = i // columns * height + gap, i % columns * width
        sheet[top : top + len(block), left : left + block.shape[1]] = block
        text = str(channel) if layer == "conv1" else f"{layer}/{channel}"
        axes.text(left, top - 2, text, fontsize=7, va="bottom")
    show(axes, sheet)
    axes.set_title(title, fontsize=9)
