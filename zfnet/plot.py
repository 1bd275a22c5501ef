"""Grids and heat maps in one shared style. Takes arrays, returns matplotlib figures; knows no model and no data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.patches as shapes
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from zfnet.data.images import to_pixels

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
}
GREY = 0.5  # the background of projections, as in the paper's figures
HEAT = "viridis"
ATTRIBUTION = "inferno"  # of maps without negative values
DIVERGING = "RdBu_r"  # of signed ones: 0 is white
NAMED = 7  # classes in a map of labels that have a colour of their own
LINES = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)  # Okabe and Ito's: told apart by the colour-blind


def style():
    """The shared style, as a context in which figures are made and saved."""
    return mpl.rc_context(STYLE)


def new_figure(width: float, height: float) -> Figure:
    """A figure, in inches, that belongs to no window: it is saved by its own `savefig`."""
    return Figure(figsize=(width, height), layout="constrained")


def draw_table(
    axes: Axes,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[float],
    grey=(),
) -> None:
    """Fill the axes with a table of text, its header in bold; the columns numbered in `grey`, the paper's, stand back."""
    axes.set_axis_off()
    whole: Any = (0, 0, 1, 1)  # which the annotation of matplotlib lacks
    table = axes.table(
        rows, colLabels=header, cellLoc="center", bbox=whole, colWidths=widths, edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    for (row, column), cell in table.get_celld().items():
        cell.set(linewidth=1.2 if row == 0 else 0.3)
        cell.get_text().set(
            weight="bold" if row == 0 else "normal", color="0.35" if column in grey else "black"
        )


def projection_image(pixels: Tensor | np.ndarray) -> np.ndarray:
    """Show signed projections (N, 3, H, W) on grey: (N, H, W, 3) in [0, 1], each with its own contrast (Fig. 2).

    0.5 + 0.5 v / m, with m the 99.8th percentile of |v| in that projection.
    """
    values = np.asarray(pixels, dtype=np.float32)
    flat = np.abs(values).reshape(len(values), -1)
    top = np.quantile(flat, 0.998, axis=1) if flat.shape[1] else np.ones(len(values))
    top = np.where(top > 0, top, np.maximum(flat.max(1, initial=0), 1e-12))[:, None, None, None]
    return np.clip(GREY + 0.5 * values / top, 0, 1).transpose(0, 2, 3, 1)


def photograph(x: Tensor | np.ndarray) -> np.ndarray:
    """Show network inputs (N, 3, H, W) as photographs: (N, H, W, 3) in [0, 1]."""
    return to_pixels(torch.as_tensor(x)).permute(0, 2, 3, 1).numpy()


def filter_image(weight: Tensor | np.ndarray) -> np.ndarray:
    """Show layer-1 filters (M, 3, k, k) as RGB (M, k, k, 3) in [0, 1]: each scaled from its minimum to its maximum, as
    in the paper."""
    values = np.asarray(
        weight.detach().cpu() if isinstance(weight, Tensor) else weight, dtype=np.float32
    )
    low = values.min((1, 2, 3), keepdims=True)
    high = values.max((1, 2, 3), keepdims=True)
    return ((values - low) / np.maximum(high - low, 1e-12)).transpose(0, 2, 3, 1)


def mosaic(tiles: np.ndarray, columns: int, gap: int = 1, background: float = 1.0) -> np.ndarray:
    """Lay tiles (N, H, W, 3) out in rows of `columns`, `gap` pixels apart: one image (.., .., 3)."""
    n, height, width, depth = tiles.shape
    rows = -(-n // columns)
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, depth),
        background,
        dtype=np.float32,
    )
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def enlarge(tiles: np.ndarray, side: int) -> np.ndarray:
    """Resize square tiles (N, H, W, 3) to `side` pixels: nearest when enlarging much (small filters), else bilinear."""
    x = torch.as_tensor(tiles).permute(0, 3, 1, 2)
    if side >= 3 * x.shape[-1]:
        x = torch.nn.functional.interpolate(x, (side, side), mode="nearest-exact")
    else:
        x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
    return x.permute(0, 2, 3, 1).numpy()


def literal(text: str) -> str:
    """Text as it is: matplotlib takes dollars for mathematics, and names of classes may hold some."""
    return text.replace("$", r"\$")


def show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """An image without ticks or frame."""
    axes.imshow(np.clip(image, 0, 1), interpolation="antialiased")
    axes.set_title(literal(title))
    axes.set_axis_off()


def heat(
    axes: Axes, values: np.ndarray, title: str = "", *, limits: tuple[float, float] | None = None
) -> None:
    """A heat map (rows, columns) with its own colour bar: dark where the value is low."""
    low, high = limits or (float(values.min()), float(values.max()))
    shown = axes.imshow(values, cmap=HEAT, vmin=low, vmax=high if high > low else low + 1e-6)
    axes.set_title(literal(title))
    axes.set_axis_off()
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def attribution_image(
    maps: Tensor | np.ndarray, *, together: bool = False, signed: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Show raw maps (N, 1, H, W) as colours (N, H, W, 3), each normalised by its m, the 99.5th percentile of |v|: with m (N,).

    A map without negative values goes from black (0) to yellow (m), a signed one from blue (-m) over white (0) to red (m).
    Where a map is not finite it is grey. `signed` chooses the colours for all maps, whatever they hold. `together` gives them
    one m, that of all of them, and one kind of colours: those of a moving picture.
    """
    values = np.asarray(maps, dtype=np.float32)[:, 0]
    finite = np.isfinite(values)
    values = np.where(finite, values, 0)
    size = np.abs(values).reshape(len(values), -1)
    top = np.quantile(size, 0.995, axis=1)
    top = np.where(top > 0, top, size.max(1))
    if together:
        top = np.full_like(top, np.quantile(size, 0.995) or size.max())
    scaled = np.clip(values / np.where(top > 0, top, 1)[:, None, None], -1, 1)
    both, plain = (mpl.colormaps[name] for name in (DIVERGING, ATTRIBUTION))
    if together and signed is None:
        signed = bool(scaled.min() < 0)
    shown = [
        both((v + 1) / 2) if (v.min() < 0 if signed is None else signed) else plain(v)
        for v in scaled
    ]
    return np.where(finite[..., None], np.stack(shown)[..., :3], GREY), top


def moving_maps(x: Tensor, shown: np.ndarray) -> np.ndarray:
    """Frames (N, 3, H, W), each beside its map laid over it in grey, coloured maps (N, H, W, 3): (N, H, 2 W + 4, 3) uint8."""
    photos = photograph(x)
    over = 0.4 * photos.mean(3, keepdims=True) + 0.6 * shown
    between = np.ones((*photos.shape[:2], 4, 3), dtype=np.float32)
    return (255 * np.concatenate([photos, between, over], 2)).round().clip(0, 255).astype(np.uint8)


def label_map(axes: Axes, labels: np.ndarray, names: Sequence[str], title: str = "") -> None:
    """The most probable class at each position (rows, columns), the most frequent in colours of their own, with a legend."""
    values, counts = np.unique(labels, return_counts=True)
    shown = values[np.argsort(-counts, kind="stable")][:NAMED]
    colours = mpl.colormaps["tab10"](np.arange(len(shown)))[:, :3]
    image = np.full((*labels.shape, 3), 0.85)
    for value, colour in zip(shown, colours, strict=True):
        image[labels == value] = colour
    show(axes, image, title)
    patches = [
        shapes.Patch(color=tuple(c), label=literal(str(names[v])))
        for v, c in zip(shown, colours, strict=True)
    ]
    if len(values) > NAMED:
        patches.append(shapes.Patch(color="0.85", label=f"{len(values) - NAMED} others"))
    axes.legend(
        handles=patches,
        fontsize=6.5,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        handlelength=1,
    )


def at_middles(axes: Axes, size: int, stride: int, side: int) -> None:
    """Put a map of an occluder's positions where its middles are in the square image of `side` pixels."""
    image, first = axes.images[0], (size - stride) / 2
    rows, columns = image.get_size()
    image.set_extent((first, first + stride * columns, first + stride * rows, first))
    axes.set(xlim=(0, side), ylim=(side, 0))


def rectangle(axes: Axes, box: Sequence[int] | np.ndarray, colour: str = "white", **style) -> None:
    """Outline a box (top, left, bottom, right) given in input pixels."""
    top, left, bottom, right = (float(v) for v in box)
    axes.add_patch(
        shapes.Rectangle(
            (left - 0.5, top - 0.5),
            right - left,
            bottom - top,
            fill=False,
            edgecolor=colour,
            **style,
        )
    )


def band(
    axes: Axes,
    x: np.ndarray,
    rows: np.ndarray,
    colour: str,
    label: str = "",
    over: np.ndarray | float = 1.0,
) -> None:
    """The mean over rows (N, T) of a line, over the mean of `over` (N,), with its 95 % bootstrap interval as a band."""
    n, base = len(rows), np.broadcast_to(over, len(rows))
    drawn = np.random.default_rng(0).multinomial(
        n, np.full(n, 1 / n), 2000
    )  # how often each row is in a draw
    low, high = np.quantile(drawn @ rows / (drawn @ base)[:, None], (0.025, 0.975), axis=0)
    axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(x, rows.mean(0) / base.mean(), color=colour, label=label)


def projection_figure(
    x: Tensor, patch: Tensor, whole: Tensor, box: Sequence[int], title: str
) -> Figure:
    """One projected feature: the image (1, 3, H, W) with its receptive field, the whole projection, and the patch enlarged."""
    figure = new_figure(7.5, 2.9)
    left, middle, right = figure.subplots(1, 3)
    show(left, photograph(x)[0], "image and receptive field")
    rectangle(left, box, "yellow", linewidth=1.5)
    show(middle, projection_image(whole)[0], "projection to pixels")
    rectangle(middle, box, "0.2", linewidth=0.8)
    show(right, projection_image(patch)[0], "receptive field, enlarged")
    figure.suptitle(literal(title))
    return figure


def occlusion_figure(
    x: Tensor,
    maps: dict[str, np.ndarray],
    labels: np.ndarray,
    names: Sequence[str],
    size: int,
    stride: int,
    title: str,
) -> Figure:
    """One image's occlusion maps: the square image (1, 3, S, S) with the occluder's size, each map with its bar, the labels."""
    figure = new_figure(3.0 * (len(maps) + 2), 3.3)
    axes = figure.subplots(1, len(maps) + 2)
    show(axes[0], photograph(x)[0], "image and occluder")
    axes[0].add_patch(shapes.Rectangle((4, 4), size, size, color="0.5"))
    for axis, (name, values) in zip(axes[1:], maps.items(), strict=False):
        heat(axis, values, name)
    label_map(axes[-1], labels, names, "most probable class")
    for axis in axes[1:]:
        at_middles(axis, size, stride, x.shape[-1])
    figure.suptitle(literal(title))
    return figure


def attribution_figure(x: Tensor, maps: Tensor, title: str, caption: str) -> Figure:
    """One image (1, 3, H, W) beside its raw attribution map (1, 1, H, W), and the map laid over the image in grey."""
    figure = new_figure(8.4, 3.3)
    left, middle, right = figure.subplots(1, 3)
    photo, (shown, top) = photograph(x)[0], attribution_image(maps)
    show(left, photo, "image")
    show(middle, shown[0], f"map, colours scaled by {top[0]:.3g}")
    show(right, 0.4 * photo.mean(2, keepdims=True) + 0.6 * shown[0], "map over the image")
    figure.suptitle(literal(title))
    figure.supxlabel(caption, fontsize=8, color="0.35")
    return figure
