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

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.boxed_images import BOXES
from zfnet.analysis.intervals import bootstrap
from zfnet.plot import attribution_image, enlarge, overlay_frames

PHOTOGRAPH = "coffee"
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
        "drawn": 208,
    },
    files=("../../paper/fig7_boxes.yaml",),
)


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    photo = zfnet.photograph(PHOTOGRAPH)
    (row, column), wnid = cup_center(photo.size)
    side, count = config["window"], config["frames"]
    margin = np.array([photo.height - side, photo.width - side])  # room of the window, (2,)
    amplitude = np.minimum(margin, side // 2) / 2  # keeps the cup in view
    angle = 2 * np.pi * np.arange(count) / count
    corner = (
        (margin / 2 + amplitude * np.stack([np.sin(angle), np.cos(angle)], 1)).round().astype(int)
    )  # (N, 2)
    x = torch.cat(
        [zfnet.preprocess(photo.crop((c, r, c + side, r + side))) for r, c in corner.tolist()]
    ).to(ctx.device)
    # The network sees the central 224 of 256 pixels of the window.
    cup_centers = ((np.array([row, column]) - corner) / side * 256 - 16).astype(
        np.float32
    )  # (N, 2)
    probability = ctx.model(x).softmax(1)
    target = ctx.model.wnids.index(wnid)
    maps = zfnet.explain(ctx.model, x, config["method"], target).map.cpu()
    centers = center_of_mass(maps).numpy()
    slopes = {
        name: slope(cup_centers[:, axis], centers[:, axis])
        for axis, name in enumerate(("down", "across"))
    }
    measured = {
        "frames": count,
        "class": ctx.model.classes[target],
        "its probability, least and most": [
            float(probability[:, target].min()),
            float(probability[:, target].max()),
        ],
        "the cup moves by, pixels": {
            n: float(np.ptp(cup_centers[:, i])) for i, n in enumerate(("down", "across"))
        },
        "the map's centre of mass follows: slope": slopes,
        "correlation": {
            n: float(np.corrcoef(cup_centers[:, i], centers[:, i])[0, 1])
            for i, n in enumerate(("down", "across"))
        },
        "distance to the middle of the cup, pixels": float(
            np.linalg.norm(centers - cup_centers, axis=1).mean()
        ),
    }
    claims, outcome = verdict(
        {f"moves with the photograph {name}": above(s) for name, s in slopes.items()}
    )
    note = (
        "A slope is 0 for a static map and 1 for one that follows exactly; 95 % intervals by "
        "bootstrap over frames. All frames share one color scale."
    )
    arrays = {"x": x.cpu().numpy(), "map": maps.numpy(), "true": cup_centers, "found": centers}
    return Result(
        arrays, measured | {"claims": claims}, outcome, n=count, note=note, scale="samples"
    )


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
    side = FIGURE.config["drawn"]
    colored, _ = attribution_image(result.arrays["map"], shared_scale=True)
    frames = overlay_frames(torch.from_numpy(result.arrays["x"]), colored)
    half = result.arrays["x"].shape[-1]
    halves = [
        enlarge(part.astype(np.float32), side)
        for part in (frames[:, :, :half], frames[:, :, -half:])
    ]
    return {"video.gif": np.concatenate(halves, 2).round().clip(0, 255).astype(np.uint8)}
