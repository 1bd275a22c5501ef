"""An attribution map over a moving image: does it follow the object?

A square window moves in an ellipse over the photograph of a cup of coffee. The cup and everything
around it move across the frames, and its annotated box is known in each. Grad-CAM of espresso, on
one scale for all frames, should move along: the map's center of mass is regressed on the center of
the box, vertically and horizontally. The slope is 0 for a static map and 1 for one that follows
exactly. The test cannot separate the cup from the table, which moves with it. `zfnet video` does
the same for a GIF or a folder of frames, with any method.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture
from matplotlib.patheffects import withStroke

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import new_page, set_finding
from reproduce.paper.boxed_images import BOXES
from zfnet.analysis.intervals import bootstrap
from zfnet.plot import attribution_image, overlay, photograph, show

PHOTOGRAPH = "coffee"
SLOPE = "the map's center of mass follows: slope"
FIGURE = Figure(
    id="video",
    title="Grad-CAM on a moving image",
    claim="As the window moves over the photograph, the map's center of mass moves the same way, "
    "vertically and horizontally.",
    inputs=("model",),
    seed=35,
    time_budget=6,
    config={
        "photograph": PHOTOGRAPH,
        "frames": 12,
        "window": 300,
        "method": "grad_cam",
    },
    files=("../../paper/fig7_boxes.yaml",),
)


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    x, cup_centers, wnid = frames(config["window"], config["frames"])
    x = x.to(ctx.device)
    target = ctx.model.wnids.index(wnid)
    probability = ctx.model(x).softmax(1)[:, target]
    maps = zfnet.explain(ctx.model, x, config["method"], target).map.cpu()
    centers = center_of_mass(maps).numpy()
    pairs = {
        name: (cup_centers[:, axis], centers[:, axis])
        for axis, name in enumerate(("down", "across"))
    }
    slopes = {name: slope(*pair) for name, pair in pairs.items()}
    measured = {
        "frames": len(x),
        "class": ctx.model.classes[target],
        "its probability, least and most": [float(probability.min()), float(probability.max())],
        "the cup moves by, pixels": {name: float(np.ptp(cup)) for name, (cup, _) in pairs.items()},
        SLOPE: slopes,
        "correlation": {name: float(np.corrcoef(*pair)[0, 1]) for name, pair in pairs.items()},
        "distance to the middle of the cup, pixels": float(
            np.linalg.norm(centers - cup_centers, axis=1).mean()
        ),
    }
    claims, outcome = verdict(
        {f"the map moves with the photograph {name}": above(s) for name, s in slopes.items()}
    )
    note = (
        "A slope is 0 for a static map and 1 for one that follows exactly; 95 % intervals by "
        "bootstrap over frames. All frames share one color scale."
    )
    arrays = {"x": x.cpu().numpy(), "map": maps.numpy(), "true": cup_centers, "found": centers}
    measured |= {"claims": claims}
    finding = (
        f"When the cup moves by one pixel, the map's center moves by {slopes['down'][0]:.2f} "
        f"vertically and by {slopes['across'][0]:.2f} horizontally."
    )
    return Result(arrays, measured, outcome, len(x), note, scale="samples", finding=finding)


def frames(side: int, count: int) -> tuple[torch.Tensor, np.ndarray, str]:
    """The views of a window that moves in an ellipse over the photograph.

    Args:
        side: Side of the window, in pixels of the photograph.
        count: Number N of frames.

    Returns:
        Inputs (N, 3, 224, 224), the center of the cup in each (N, 2), and the cup's class.
    """
    photo = zfnet.photograph(PHOTOGRAPH)
    (row, column), wnid = cup_center(photo.size)
    margin = np.array([photo.height - side, photo.width - side])  # room of the window, (2,)
    amplitude = np.minimum(margin, side // 2) / 2  # keeps the cup in view
    angle = 2 * np.pi * np.arange(count) / count
    direction = np.stack([np.sin(angle), np.cos(angle)], 1)
    corner = (margin / 2 + amplitude * direction).round().astype(int)  # (N, 2)
    crops = [photo.crop((c, r, c + side, r + side)) for r, c in corner.tolist()]
    # The network sees the central 224 of 256 pixels of the window.
    centers = (np.array([row, column]) - corner) / side * 256 - 16
    return torch.cat([zfnet.preprocess(crop) for crop in crops]), centers.astype(np.float32), wnid


def cup_center(size: tuple[int, int]) -> tuple[tuple[float, float], str]:
    """The center of the cup's box, and its class.

    Args:
        size: (width, height) of the photograph.

    Returns:
        (row, column) in pixels of the photograph, and a WordNet id.
    """
    rows = yaml.safe_load(BOXES.read_text())["samples"]
    (row,) = [row for row in rows if PHOTOGRAPH in row["images"]]
    top, left, bottom, right = row["images"][PHOTOGRAPH]["cup"][0]
    shorter_side = min(size)  # the annotated view: the central 224 of 256 pixels of the square
    middle = (np.array([top + bottom, left + right]) / 2 + 16) / 256 * shorter_side + (
        np.array(size[::-1]) - shorter_side
    ) / 2
    return (float(middle[0]), float(middle[1])), row["wnid"]


def center_of_mass(maps: torch.Tensor) -> torch.Tensor:
    """The centers of mass (row, column) of the positive part of maps (N, 1, H, W): (N, 2)."""
    mass = maps[:, 0].clamp_min(0)
    place = [torch.arange(n, dtype=mass.dtype) for n in mass.shape[1:]]
    total = mass.sum((1, 2)).clamp_min(1e-30)
    return torch.stack([(mass.sum(2) @ place[0]) / total, (mass.sum(1) @ place[1]) / total], 1)


def slope(cup_centers: np.ndarray, centers: np.ndarray) -> list[float]:
    """The least-squares slope of one coordinate of the map over that of the cup.

    Args:
        cup_centers: The center of the cup's box in each frame (N,).
        centers: The map's center of mass in each frame (N,).

    Returns:
        [slope, low, high], with an interval over frames.
    """

    def fit(drawn: np.ndarray) -> float:
        a, b = (
            cup_centers[drawn] - cup_centers[drawn].mean(),
            centers[drawn] - centers[drawn].mean(),
        )
        return float(a @ b / (a @ a)) if a.any() else float("nan")

    return [fit(np.arange(len(cup_centers))), *bootstrap(fit, len(cup_centers), seed=FIGURE.seed)]


def draw(result: Result) -> dict[str, Any]:
    a = result.arrays
    photos, (maps, _) = photograph(a["x"]), attribution_image(a["map"], shared_scale=True)
    pictures = []
    for photo, map, cup, center in zip(photos, maps, a["true"], a["found"], strict=True):
        figure = draw_frame(photo, overlay(photo, map), cup, center, result.finding.rstrip("."))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return {"video.gif": np.stack(pictures)}


def draw_frame(
    photo: np.ndarray, heat: np.ndarray, cup: np.ndarray, center: np.ndarray, finding: str
) -> Picture:
    """Draw a frame: the view and the map over it, with the centers of the cup and of the map."""
    figure = new_page(4.8)
    left, right = figure.subplots(1, 2)
    show(left, photo, "the view; circle: the cup's center")
    show(right, heat, "Grad-CAM of espresso; cross: its center of mass")
    edge = [withStroke(linewidth=4, foreground="black")]
    for panel in (left, right):
        panel.plot(*cup[::-1], "o", markersize=14, markerfacecolor="none",
                   markeredgecolor="white", markeredgewidth=2, path_effects=edge)  # fmt: skip
    right.plot(*center[::-1], "x", markersize=12, color="white", markeredgewidth=2,
               path_effects=edge)  # fmt: skip
    set_finding(figure, finding)
    return figure
