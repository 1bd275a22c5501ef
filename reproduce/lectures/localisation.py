"""Where is the object? Boxes from the maps of a network that was shown classes, and never a box.

Simonyan et al. 2014, section 3.2: the strongest saliency is taken for the object, the weakest for the ground, a segmentation
spreads both over the image, and the object's box is that of its largest part. Zhou et al. 2016, section 3.2: the box of the
largest part of a class activation map that is above a fifth of its maximum. Both as they are, but that the random walker (Grady
2006) segments in GraphCut's place, at half the resolution and from blurred saliency. A box counts as right where it overlaps
the one drawn by eye by half or more (intersection over union), as in ILSVRC. What must be beaten is one box for all images, the
best there is.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.patheffects import withStroke
from scipy.ndimage import find_objects, gaussian_filter, label
from skimage.segmentation import random_walker

import zfnet
from reproduce.core.annotations import find_annotated
from reproduce.core.claims import above, verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.objects import annotations
from reproduce.lectures.shared import FEW
from zfnet.analysis.intervals import mean_interval, wilson
from zfnet.graph import UnsupportedNetwork
from zfnet.plot import LINES, new_figure, photograph, rectangle, show

FIGURE = Figure(
    id="localisation",
    title="Objects' boxes from attributions, without boxes in training",
    claim="The box of a class activation map, and of a segmentation from saliency, finds the object more often than the best "
    "single box for all images.",
    inputs=("model", "images"),
    seed=39,
    time_budget=2,
    config={
        "share": 0.2,
        "object": 0.95,
        "ground": 0.3,
        "scale": 2,
        "blur": 4.0,
        "beta": 130,
        "overlap": 0.5,
        "shown": 8,
    },
    files=("objects.yaml",),
)
ONE = "one box for all"


def compute(ctx) -> Result:
    if ctx.corpus == SAMPLES:
        return Result(
            {},
            {},
            "not run",
            n=0,
            note="The sample photographs have no boxes; give ImageNet with --data.",
        )
    config, marks = FIGURE.config, annotations()["boxes"]
    places, missing = find_annotated(ctx, {name: marks[name]["sha256"] for name in sorted(marks)})
    if len(places) < FEW:
        return Result(
            {},
            {},
            "not run",
            n=len(places),
            note=f"The corpus has fewer than {FEW} images with boxes. {missing}",
        )
    truth = np.array([marks[name]["box"] for name in places])
    rows = list(places.values())
    ways = {way: how for way, how in WAYS.items() if explains(ctx, how[0])}
    found: dict[str, list] = {way: [] for way in ways}
    for i in ctx.progress(rows, total=len(rows), desc="boxes"):
        x = ctx.images.batch([i]).to(ctx.device)
        target, pixels = int(ctx.images.labels[i]), photograph(x.cpu())[0]
        for way, (method, boxed) in ways.items():
            found[way].append(
                boxed(zfnet.explain(ctx.model, x, method, target).map[0, 0].cpu().numpy(), pixels)
            )
    boxes = {way: np.array(of) for way, of in found.items()} | {
        ONE: np.tile(best_single(truth, ctx.images.size), (len(truth), 1))
    }
    overlaps = {way: overlap(of, truth) for way, of in boxes.items()}
    right = {way: of >= config["overlap"] for way, of in overlaps.items()}
    gains = {
        way: mean_interval(100.0 * (right[way].astype(float) - right[ONE]), seed=FIGURE.seed)
        for way in ways
    }
    measured = {
        "boxes that are right, %": {way: percent(of) for way, of in right.items()},
        "overlap, mean": {way: mean_interval(of, seed=FIGURE.seed) for way, of in overlaps.items()},
        f"right, less {ONE}, points": gains,
        "share of the view in the box, drawn by eye": float(
            area(truth).mean() / ctx.images.size**2
        ),
        "share of the view in the box": {
            way: float(area(of).mean() / ctx.images.size**2) for way, of in boxes.items()
        },
    }
    claims, said = verdict(
        {f"{way} is right more often than {ONE}": above(gain) for way, gain in gains.items()}
    )
    note = (
        f"{len(rows)} validation images drawn at random, boxes drawn by eye; the class asked for is the true one, whatever the "
        f"network says. {ONE.capitalize()}: of boxes around the middle, that which is right most often on these very images. "
        f"Intervals of 95 %, over images. {missing}"
    )
    some = np.linspace(0, len(rows) - 1, config["shown"]).round().astype(int)
    x = ctx.images.batch([rows[i] for i in some])
    names = np.array([ctx.model.classes[int(ctx.images.labels[rows[i]])] for i in some])
    arrays = {f"boxes.{way}": of for way, of in boxes.items()} | {
        f"overlap.{way}": of for way, of in overlaps.items()
    }
    arrays |= {
        "truth": truth,
        "shown": some,
        "names": names,
        "photographs": photograph(x).astype(np.float16),
    }
    return Result(arrays, measured | {"claims": claims}, said, n=len(rows), note=note)


def explains(ctx, method: str) -> bool:
    """Whether a method has maps of this network: CAM wants a pooling head, guided back-propagation ReLUs."""
    try:
        zfnet.explain(ctx.model, ctx.images.batch([0]).to(ctx.device), method)
    except UnsupportedNetwork:
        return False
    return True


def part_above(map: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The box of the largest part above a share of the map's maximum."""
    return box_of(map > FIGURE.config["share"] * map.max())


def segmented(map: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The box of the segment that spreads from the strongest values of a map (H, W), against that from the weakest."""
    config, scale = FIGURE.config, FIGURE.config["scale"]
    height, width = (n // scale for n in map.shape)
    small = (
        np.asarray(pixels)[: height * scale, : width * scale]
        .reshape(height, scale, width, scale, 3)
        .mean((1, 3))
    )
    smooth = gaussian_filter(map, config["blur"])[: height * scale : scale, : width * scale : scale]
    seeds = np.zeros(smooth.shape, dtype=int)
    seeds[smooth <= np.quantile(smooth, config["ground"])] = 1
    seeds[smooth > np.quantile(smooth, config["object"])] = 2
    if not (seeds == 2).any():  # a flat map: nothing is stronger
        return box_of(np.zeros(map.shape, dtype=bool))
    return scale * box_of(
        random_walker(small, seeds, beta=config["beta"], mode="cg_j", tol=1e-5, channel_axis=-1)
        == 2
    )


def box_of(mask: np.ndarray) -> np.ndarray:
    """The box (top, left, bottom, right) of the largest part of a mask (H, W), or of all of it where it is empty."""
    parts, count = label(mask)
    if not count:
        return np.array([0, 0, *mask.shape])
    rows, columns = find_objects(parts)[np.bincount(parts.ravel())[1:].argmax()]
    return np.array([rows.start, columns.start, rows.stop, columns.stop])


def area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4), each with its own: (N,) in [0, 1]."""
    both = area(
        np.concatenate(
            [np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])], 1
        )
    )
    return both / (area(one) + area(other) - both)


def best_single(truth: np.ndarray, side: int, step: int = 8) -> np.ndarray:
    """Of boxes around the middle of the view, that which is right for most of these (N, 4)."""
    halves, middle = range(step, side // 2 + 1, step), side // 2
    boxes = [
        np.array([middle - h, middle - w, middle + h, middle + w]) for h in halves for w in halves
    ]
    return max(
        boxes,
        key=lambda box: float(
            (overlap(np.tile(box, (len(truth), 1)), truth) >= FIGURE.config["overlap"]).mean()
        ),
    )


def percent(right: np.ndarray) -> list[float]:
    """[share, low, high] in percent, with Wilson's interval."""
    return [100 * v for v in (right.mean(), *wilson(int(right.sum()), len(right)))]


WAYS: dict[str, tuple[str, Callable]] = {
    "CAM": ("cam", part_above),
    "Grad-CAM": ("grad_cam", part_above),
    "saliency, segmented": ("saliency", segmented),
    "guided back-propagation, segmented": ("guided_backprop", segmented),
    "deconvnet, segmented": ("deconvnet", segmented),
}

WORDS = {"CAM": "blue", "saliency, segmented": "green"}  # of LINES


def draw(result: Result):
    if not result.arrays:
        return {}
    a, right = result.arrays, result.measured["boxes that are right, %"]
    colours = dict(zip(WAYS, LINES, strict=False)) | {ONE: "0.6"}
    figure = new_figure(12.4, 4.6)
    left, axes = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    drawn = [way for way in ("CAM", "saliency, segmented") if way in right]
    for panel, i, picture, name in zip(
        left.subplots(2, 4).flat, a["shown"], a["photographs"], a["names"], strict=True
    ):
        show(panel, picture.astype(np.float32), name)
        truth = np.clip(
            a["truth"][i], 3, picture.shape[0] - 3
        )  # not on the border, where it would not be seen
        rectangle(
            panel,
            truth,
            "white",
            linewidth=2.5,
            path_effects=[withStroke(linewidth=4.5, foreground="0.1")],
        )
        rectangle(panel, a[f"boxes.{ONE}"][i], colours[ONE], linewidth=1.4, linestyle="--")
        for way in drawn:
            rectangle(panel, a[f"boxes.{way}"][i], colours[way], linewidth=1.8)
    left.suptitle(
        "; ".join(["by eye: white", f"{ONE}: dashed", *(f"{way}: {WORDS[way]}" for way in drawn)])
    )
    bars = axes.subplots()
    values = np.array(list(right.values()))
    bars.barh(list(right), values[:, 0], color=[colours[way] for way in right])
    bars.errorbar(
        values[:, 0],
        range(len(right)),
        xerr=abs(values[:, 1:] - values[:, :1]).T,
        fmt="none",
        color="0.2",
        capsize=2,
    )
    bars.invert_yaxis()
    bars.set(xlabel="boxes that are right, %, and 95 % interval", title=f"{result.n} images")
    return {"localisation.jpg": figure}
