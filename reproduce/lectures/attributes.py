"""Which images does the network recognise? Accuracy against what an image looks like, and how often its class was seen.

Brightness, contrast, sharpness and colorfulness of the 224 x 224 view, the share of it that the object's annotated box takes,
and the number of training images of the class: in bins of as many images each, with the accuracy of each bin. An attribute
may go with accuracy because it goes with the class (flowers are colourful, and easy). So each is also compared within classes:
how often, of two images of one class, it is the recognised one that has more of it; without a relation half the time.
"""

from itertools import pairwise

import numpy as np

from reproduce.core.annotations import find_annotated
from reproduce.core.claims import above, verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.objects import annotations
from reproduce.lectures.recognised import recognise, training_images
from reproduce.lectures.shared import FEW
from zfnet.analysis.attributes import ATTRIBUTES, QuantileBins, accuracy_by_quantile
from zfnet.analysis.intervals import bootstrap
from zfnet.data.images import center_crop
from zfnet.plot import LINES, enlarge, mosaic, new_figure, photograph, show

FIGURE = Figure(
    id="attributes",
    title="Accuracy against an image's attributes",
    claim="Images with more contrast, detail or colour, with larger objects, and of classes with more training images are "
    "recognised more often.",
    inputs=("model", "images"),
    seed=33,
    time_budget=2,
    config={"bins": 5, "bins of sizes": 3, "shown": 3},
    files=("objects.yaml",),
    labels=True,
)
SIZE, SEEN = "object size", "training images"
UNITS = {
    "brightness": "mean luma", "contrast": "deviation of luma", "sharpness": "deviation of the Laplacian over contrast",
    "colorfulness": "Hasler and Suesstrunk's M", SIZE: "share of the view in the object's box", SEEN: "of the class",
}  # fmt: skip


def compute(ctx) -> Result:
    if ctx.corpus == SAMPLES or len(ctx.images) < FEW:
        return Result(
            {},
            {},
            "not run",
            n=0,
            note=f"Accuracy needs at least {FEW} labeled images; give them with --data.",
        )
    config, found = FIGURE.config, recognise(ctx)
    values = look(ctx)
    placed = {name: np.arange(len(found.labels)) for name in ATTRIBUTES}
    boxes = annotations()["boxes"]
    places, missing = find_annotated(ctx, {name: boxes[name]["sha256"] for name in sorted(boxes)})
    if len(places) >= FEW:
        placed[SIZE] = np.array(list(places.values()))
        values[SIZE] = np.array([area(boxes[name]["box"]) for name in places])
    seen = training_images(ctx)
    if seen is not None:
        placed[SEEN], values[SEEN] = np.arange(len(found.labels)), seen[found.labels].astype(float)
    bins = {
        name: accuracy_by_quantile(
            v, found.right[placed[name]], config["bins of sizes" if name == SIZE else "bins"]
        )
        for name, v in values.items()
        if v.min() < v.max()
    }
    measured: dict = {"top-1, %": 100 * float(found.right.mean())}
    measured |= {name: described(b) for name, b in bins.items()}
    measured["within classes, the recognised image has more of it, share of pairs"] = {
        name: within(values[name], found.right, found.labels) for name in ATTRIBUTES
    }
    top5 = found.rank() <= 5
    if SIZE in bins:
        sized = accuracy_by_quantile(values[SIZE], top5[placed[SIZE]], config["bins of sizes"])
        measured[SIZE]["top-5, % by bin"] = [round(100 * s, 1) for s in sized.share]
        measured[SIZE]["top-5, last less first, points"] = [100 * v for v in sized.difference]
    if SEEN in bins:  # the number is one of the class, so its interval is over classes
        measured[SEEN]["last less first, points"] = by_class(
            values[SEEN], found.right, found.labels, bins[SEEN].edges
        )
    rises = {
        name: above(row["last less first, points"])
        for name, row in measured.items()
        if name in bins
    }
    inside = measured["within classes, the recognised image has more of it, share of pairs"]
    claims, outcome = verdict(
        {f"accuracy rises with {name}": yes for name, yes in rises.items() if name != "brightness"}
        | {
            f"and within classes with {name}": above(inside[name], 0.5)
            for name in rises
            if name != "brightness" and inside.get(name)
        }
    )
    arrays = {f"value.{name}": v for name, v in values.items()} | {
        f"image.{name}": placed[name] for name in values
    }
    arrays |= {"right": found.right, "top5": top5}
    for name in ATTRIBUTES:
        order = np.argsort(values[name])
        shown = order[(np.linspace(0.02, 0.98, config["shown"]) * len(order)).astype(int)]
        arrays[f"shown.{name}"] = photograph(ctx.images.batch(shown))
    note = (
        "Top-1 in bins of as many images each, Wilson's 95 % intervals; the last bin less the first with Newcombe's, for "
        "training images by bootstrap over classes. The small images are of the attribute's 2nd, 50th and 98th percentile. "
        "Within classes: pairs of a recognised and another image of one class, 95 % by bootstrap over classes. Object size: "
        f"images drawn at random, boxes drawn by eye. {missing}"
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(found.labels), note=note)


def look(ctx) -> dict[str, np.ndarray]:
    """Every attribute of every image of the corpus: (N,) each."""
    rows: dict[str, list] = {name: [] for name in ATTRIBUTES}
    for part in ctx.progress(
        np.array_split(np.arange(len(ctx.images)), -(-len(ctx.images) // 100)), desc="looking"
    ):
        # What batch() standardises, before it does.
        pixels = (
            center_crop(ctx.images.raw(part).permute(0, 3, 1, 2), ctx.images.size).float() / 255
        )
        for name, attribute in ATTRIBUTES.items():
            rows[name].append(attribute(pixels).numpy())
    return {name: np.concatenate(parts).astype(float) for name, parts in rows.items()}


def area(box: list[int], side: int = 224) -> float:
    """The share of the view that a box (top, left, bottom, right) takes."""
    return (box[2] - box[0]) * (box[3] - box[1]) / side**2


def described(b: QuantileBins) -> dict:
    return {
        "bins from": [float(e) for e in b.edges], "images": b.count.tolist(),
        "top-1, % by bin": [round(100 * s, 1) for s in b.share],
        "last less first, points": [100 * v for v in b.difference],
    }  # fmt: skip


def spans(values: np.ndarray, edges: np.ndarray) -> list[str]:
    """Each bin in words: from where to where, or the one value that is in it."""
    bins = np.searchsorted(edges[1:-1], values, side="right")
    alike = [len(np.unique(values[bins == n])) == 1 for n in range(len(edges) - 1)]
    return [
        low if one else f"{low} to {high}"
        for one, (low, high) in zip(alike, pairwise(fitted(edges)), strict=True)
    ]


def fitted(edges: np.ndarray) -> list[str]:
    """Numbers as plain decimals, with as few digits as tell them apart: 0, 21, 164; 0.05, 0.35, 0.42; 40, 1,340."""
    texts = ([f"{edge:,.{digits}f}" for edge in edges] for digits in range(9))
    return next(said for said in texts if len(set(said)) == len(np.unique(edges)))


def within(values: np.ndarray, right: np.ndarray, labels: np.ndarray) -> list[float]:
    """Of the pairs of a right and a wrong image of one class, the share in which the right one has more: [share, low, high].

    Empty where fewer than two classes have such a pair.
    """
    won, pairs = [], []
    for label in np.unique(labels):
        one, other = (values[(labels == label) & side] for side in (right, ~right))
        if len(one) and len(other):
            won.append(((np.sign(one[:, None] - other) + 1) / 2).sum())
            pairs.append(len(one) * len(other))
    if len(won) < 2:
        return []
    won, pairs = np.array(won), np.array(pairs)
    return [
        float(won.sum() / pairs.sum()),
        *bootstrap(lambda i: float(won[i].sum() / pairs[i].sum()), len(won), seed=FIGURE.seed),
    ]


def by_class(
    values: np.ndarray, right: np.ndarray, labels: np.ndarray, edges: np.ndarray
) -> list[float]:
    """Accuracy in the last bin less that in the first of a number that a class has, in points: [d, low, high] over classes."""
    known, first, images = np.unique(labels, return_index=True, return_counts=True)
    hits, of = np.array([right[labels == label].sum() for label in known]), values[first]

    def apart(drawn: np.ndarray) -> float:
        low, high = (drawn[side] for side in (of[drawn] < edges[1], of[drawn] >= edges[-2]))
        if not len(low) or not len(high):
            return float("nan")
        return 100 * float(
            hits[high].sum() / images[high].sum() - hits[low].sum() / images[low].sum()
        )

    every = np.arange(len(known))
    return [apart(every), *bootstrap(apart, len(every), seed=FIGURE.seed)]


def draw(result: Result):
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    names = [name for name in UNITS if name in m]
    figure = new_figure(12, 7.2)
    grid = figure.subplots(4, 3, height_ratios=(0.42, 1, 0.42, 1))
    for panel in grid[::2].flat:
        panel.set_axis_off()
    within_class = m["within classes, the recognised image has more of it, share of pairs"]
    for n, name in enumerate(names):
        strip, panel = grid[2 * (n // 3), n % 3], grid[2 * (n // 3) + 1, n % 3]
        if f"shown.{name}" in a:
            show(strip, mosaic(enlarge(a[f"shown.{name}"], 110), len(a[f"shown.{name}"]), gap=40))
        b = accuracy_by_quantile(
            a[f"value.{name}"],
            a["right"][a[f"image.{name}"]],
            FIGURE.config["bins of sizes" if name == SIZE else "bins"],
        )
        place, share = np.arange(len(b.share)), 100 * b.share
        panel.errorbar(
            place, share, yerr=abs(100 * b.interval.T - share), fmt="o-", color=LINES[0], capsize=3
        )
        panel.axhline(m["top-1, %"], color="0.6", linewidth=0.8, linestyle="--")
        panel.set_xticks(place, spans(a[f"value.{name}"], b.edges), fontsize=7.5)
        panel.set(
            title=f"{name}, n = {len(a[f'value.{name}']):,}", ylabel="top-1, %", xlabel=UNITS[name]
        )
        panel.set_xlim(-0.4, len(place) - 0.6)
        if within_class.get(name):
            said = "AUC of being recognised, within classes: {:.2f} ({:.2f} to {:.2f})".format(
                *within_class[name]
            )
            panel.text(0.5, 0.06, said, transform=panel.transAxes, ha="center", fontsize=7.5)
        panel.set_ylim(0, max(40, 1.1 * 100 * b.interval.max()))
    for panel in grid[1::2].flat[len(names) :]:
        panel.set_axis_off()
    return {"attributes.jpg": figure}
