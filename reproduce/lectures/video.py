"""A map over a moving picture: does it move with what it sees?

A square window moves in an ellipse over the photograph of a cup of coffee, so the cup and all around it move over the frames;
where its annotated box is in each frame is known. Grad-CAM of espresso, on one scale for all frames, is to move with it: the
map's centre of mass is compared with the middle of the box by regression, down and across. A map that stays in place has a
slope of 0, one that follows exactly 1. That it moves with the cup, and not with the table, is not shown: they move alike.
`zfnet video` does this for a GIF, or a folder of frames, with any method.
"""

import numpy as np
import torch
import yaml

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper.boxed_images import BOXES
from zfnet.analysis.intervals import bootstrap
from zfnet.plot import attribution_image, enlarge, overlay_frames

PHOTOGRAPH = "coffee"
FIGURE = Figure(
    id="video",
    title="Grad-CAM over a moving picture",
    claim="As the window moves over the photograph, the map's centre of mass moves the same way, down and across.",
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
    files=("../paper/fig7_boxes.yaml",),
)


def compute(ctx) -> Result:
    config = FIGURE.config
    photo = zfnet.photograph(PHOTOGRAPH)
    (row, column), wnid = cup(photo.size)
    side, count = config["window"], config["frames"]
    free = np.array(
        [photo.height - side, photo.width - side]
    )  # how far the window can move down, and across
    reach = np.minimum(free, side // 2) / 2  # so that the cup stays in it
    angle = 2 * np.pi * np.arange(count) / count
    corner = (
        (free / 2 + reach * np.stack([np.sin(angle), np.cos(angle)], 1)).round().astype(int)
    )  # (N, 2)
    x = torch.cat(
        [zfnet.preprocess(photo.crop((c, r, c + side, r + side))) for r, c in corner.tolist()]
    ).to(ctx.device)
    # The network sees the middle 224 of 256 pixels of the window.
    true = ((np.array([row, column]) - corner) / side * 256 - 16).astype(np.float32)  # (N, 2)
    probability = ctx.model(x).softmax(1)
    target = ctx.model.wnids.index(wnid)
    map = zfnet.explain(ctx.model, x, config["method"], target).map.cpu()
    found = centre_of_mass(map).numpy()
    slopes = {
        name: slope(true[:, axis], found[:, axis]) for axis, name in enumerate(("down", "across"))
    }
    measured = {
        "frames": count, "class": ctx.model.classes[target], "its probability, least and most": [
            float(probability[:, target].min()), float(probability[:, target].max())
        ],
        "the cup moves by, pixels": {n: float(np.ptp(true[:, i])) for i, n in enumerate(("down", "across"))},
        "the map's centre of mass follows: slope": slopes,
        "correlation": {n: float(np.corrcoef(true[:, i], found[:, i])[0, 1]) for i, n in enumerate(("down", "across"))},
        "distance to the middle of the cup, pixels": float(np.linalg.norm(found - true, axis=1).mean()),
    }  # fmt: skip
    claims, outcome = verdict(
        {f"moves with the photograph {name}": above(s) for name, s in slopes.items()}
    )
    note = (
        "A slope is 0 if the map stays, 1 if it follows; 95 % intervals by bootstrap over frames. The colours of all frames "
        "have one scale."
    )
    arrays = {"x": x.cpu().numpy(), "map": map.numpy(), "true": true, "found": found}
    return Result(
        arrays, measured | {"claims": claims}, outcome, n=count, note=note, scale="samples"
    )


def cup(size: tuple[int, int]) -> tuple[tuple[float, float], str]:
    """The middle of the cup's box, (row, column) in pixels of the photograph of (width, height); its class's WordNet id."""
    rows = yaml.safe_load(BOXES.read_text())["samples"]
    (row,) = [row for row in rows if PHOTOGRAPH in row["images"]]
    top, left, bottom, right = row["images"][PHOTOGRAPH]["cup"][0]
    short = min(size)  # the annotated view is the middle 224 of 256 pixels of the middle square
    middle = (np.array([top + bottom, left + right]) / 2 + 16) / 256 * short + (
        np.array(size[::-1]) - short
    ) / 2
    return (float(middle[0]), float(middle[1])), row["wnid"]


def centre_of_mass(map: torch.Tensor) -> torch.Tensor:
    """The mean place of maps (N, 1, H, W), weighted by what is above zero: (N, 2) as (row, column)."""
    mass = map[:, 0].clamp_min(0)
    place = [torch.arange(n, dtype=mass.dtype) for n in mass.shape[1:]]
    total = mass.sum((1, 2)).clamp_min(1e-30)
    return torch.stack([(mass.sum(2) @ place[0]) / total, (mass.sum(1) @ place[1]) / total], 1)


def slope(true: np.ndarray, found: np.ndarray) -> list[float]:
    """The slope of found over true by least squares, with its interval over frames: [slope, low, high]."""

    def fit(drawn: np.ndarray) -> float:
        a, b = true[drawn] - true[drawn].mean(), found[drawn] - found[drawn].mean()
        return float(a @ b / (a @ a)) if a.any() else float("nan")

    return [fit(np.arange(len(true))), *bootstrap(fit, len(true), seed=FIGURE.seed)]


def draw(result: Result):
    side = FIGURE.config["drawn"]
    frames = overlay_frames(
        result.arrays["x"], attribution_image(result.arrays["map"], shared_scale=True)[0]
    )
    half = result.arrays["x"].shape[-1]
    both = [
        enlarge(part.astype(np.float32), side)
        for part in (frames[:, :, :half], frames[:, :, -half:])
    ]
    return {"video.gif": np.concatenate(both, 2).round().clip(0, 255).astype(np.uint8)}
