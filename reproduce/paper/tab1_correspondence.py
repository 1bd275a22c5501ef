"""Table 1: does masking the same part of different dogs change the features in the same way?

The paper's claim: the network implicitly establishes correspondence between parts. With the right eye, left eye or nose
masked, the sign of the change of the features, eps = x - x~, agrees between images more than with random parts masked: the
Hamming distance Delta is lower at layer 5. At layer 7 it is about the same for all, for there the breed is told apart.
Mean and standard deviation are over repetitions: five images drawn from all that are annotated, random parts drawn anew.
The interval, and so the verdict, is of the paired difference over all images, by bootstrap over images. Eyes also lie at
much the same place of every view, and random parts do not: a control of ours masks in each image the place where another
one has the part, so that the places are spread alike, though some cover the part itself: how many is measured.
"""

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper.dog_faces import PARTS, load_faces
from reproduce.paper.fig8_parts import FIGURE as MASKS
from zfnet.analysis.correspondence import correspondence, part_boxes, random_points
from zfnet.analysis.intervals import bootstrap
from zfnet.plot import draw_table, new_figure

LAYERS = {"pool5": "layer 5", "fc7": "layer 7"}
FIGURE = Figure(
    id="tab1",
    title="Correspondence between parts of different images",
    claim="Masking an eye or the nose changes layer 5 more alike from dog to dog than masking random parts; layer 7 hardly.",
    inputs=("model", "images"),
    seed=1,
    time_budget=20,
    paper={
        "layer 5": {
            "right eye": [0.067, 0.007],
            "left eye": [0.069, 0.007],
            "nose": [0.079, 0.017],
            "random": [0.107, 0.017],
        },
        "layer 7": {
            "right eye": [0.069, 0.015],
            "left eye": [0.068, 0.013],
            "nose": [0.069, 0.011],
            "random": [0.073, 0.014],
        },
    },
    config={
        "layers": list(LAYERS),
        "size": MASKS.config["size"],
        "fill": MASKS.config["fill"],
        "random parts": 40,
        "shifts": 12,
        "subsets": 1000,
        "images": 5,
    },
    files=("faces.yaml",),
    network="chain",
)
RANDOM = "random"
SMALLER = "parts below random, layer 5 less layer 7, points"
MOVED = {part: f"another's {part}" for part in PARTS}  # the control


def compute(ctx) -> Result:
    names, x, points, heads, missing = load_faces(ctx)
    if len(names) < 2:
        return Result(
            {},
            {},
            "not run",
            n=len(names),
            note=f"Fewer than two annotated images in the corpus. {missing}",
        )
    config = FIGURE.config
    generator = torch.Generator().manual_seed(FIGURE.seed)
    random = random_points(heads, points, config["size"], config["random parts"], generator)
    parts = points.transpose(0, 1)  # (3, N, 2)
    shifts = np.unique(
        np.linspace(1, len(names) - 1, config["shifts"]).round().astype(int)
    ).tolist()
    moved = [
        torch.stack([part.roll(shift, 0) for shift in shifts]) for part in parts
    ]  # image n has the place of n - shift
    every = torch.cat([parts, random, *moved])
    found = correspondence(
        ctx.model,
        x.to(ctx.device),
        every.to(ctx.device),
        size=config["size"],
        fill=config["fill"],
        progress=ctx.progress,
    )
    counts = [1, 1, 1, len(random)] + [len(shifts)] * len(PARTS)
    groups = dict(
        zip((*PARTS, RANDOM, *MOVED.values()), torch.arange(len(every)).split(counts), strict=True)
    )
    boxes = part_boxes(torch.stack(moved), config["size"], *x.shape[-2:])  # (parts, shifts, N, 4)
    hit = (
        ((parts[:, None] >= boxes[..., :2]) & (parts[:, None] < boxes[..., 2:]))
        .all(-1)
        .float()
        .mean((1, 2))
    )
    covers = {name: 100 * float(share) for name, share in zip(MOVED.values(), hit, strict=True)}
    measured: dict = {
        "images": len(names),
        "masks at another's place that cover the same part here, %": covers,
    }
    below: dict[str, np.ndarray] = {}
    for layer, words in LAYERS.items():
        difference = found.difference[layer].cpu().numpy()
        pairs = {
            name: difference[which.numpy()] for name, which in groups.items()
        }  # (repetitions, N, N) each
        measured[words] = {name: repeated(d) for name, d in pairs.items()}
        mean = {name: d.mean(0) for name, d in pairs.items()}
        for title, other in ((RANDOM, dict.fromkeys(PARTS, RANDOM)), ("another's place", MOVED)):
            less = {part: mean[other[part]] - mean[part] for part in PARTS}
            less["all three parts"] = np.mean(list(less.values()), 0)
            measured[f"{words}, {title} less the part"] = {
                part: paired(d) for part, d in less.items()
            }
        gain = measured[f"{words}, {RANDOM} less the part"]["all three parts"]
        measured[f"{words}, parts below random, %"] = [
            100 * v / paired(mean[RANDOM])[0] for v in gain
        ]
        below[layer] = (
            100
            * np.mean([mean[RANDOM] - mean[part] for part in PARTS], 0)
            / paired(mean[RANDOM])[0]
        )
    measured[SMALLER] = paired(below["pool5"] - below["fc7"])
    claims, said = judge(measured) if len(names) >= config["images"] else ({}, "not comparable")
    note = (
        f"Mean and standard deviation over {config['subsets']} draws of {config['images']} of {len(names)} images; differences "
        f"over all, with 95 % intervals. {config['random parts']} sets of random parts of the head that cover no eye's or "
        "nose's middle. The paper does not say what its sum is divided by, so that the order compares and the size does not. "
        f"From image to image {apart(points):.0f} pixels lie between the places of a part, {apart(random.transpose(0, 1)):.0f} "
        f"between those of random ones: of that the control is free. {ctx.differences_from_paper}"
    )
    note += "" if claims else "The paper has five images: with fewer there is nothing to compare. "
    return Result({}, measured | {"claims": claims}, said, n=len(names), note=note + missing)


def apart(points: torch.Tensor) -> float:
    """The mean distance in pixels between the places (N, K, 2) of one mask in two images."""
    places, n = points.transpose(0, 1).double(), len(points)
    return float(torch.cdist(places, places).sum((1, 2)).mean() / (n * (n - 1)))


def repeated(difference: np.ndarray) -> list[float]:
    """Delta's mean and standard deviation over repetitions: a few of the images, and one of the (R, N, N) sets of parts.

    The mean alone where there is one set, and no more images than are drawn.
    """
    n, rng = difference.shape[1], np.random.default_rng(FIGURE.seed)
    few = min(FIGURE.config["images"], n)
    deltas = []
    for _ in range(FIGURE.config["subsets"]):
        chosen = rng.choice(n, few, replace=False)
        deltas.append(
            difference[rng.integers(len(difference))][np.ix_(chosen, chosen)].sum()
            / (few * (few - 1))
        )
    return (
        [float(np.mean(deltas)), float(np.std(deltas))]
        if few < n or len(difference) > 1
        else [float(np.mean(deltas))]
    )


def paired(difference: np.ndarray) -> list[float]:
    """The mean over pairs of different images (N, N), and its interval: [mean, low, high]; for fewer than three, [mean]."""
    n = len(difference)

    def mean(drawn: np.ndarray) -> float:
        other = drawn[:, None] != drawn  # an image drawn twice is no pair with itself
        return (
            float(difference[np.ix_(drawn, drawn)][other].mean()) if other.any() else float("nan")
        )

    return [mean(np.arange(n)), *(bootstrap(mean, n, seed=FIGURE.seed) if n > 2 else [])]


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Which claims hold; the paper's main one is of the three parts together."""
    less = {other: m[f"layer 5, {other} less the part"] for other in (RANDOM, "another's place")}
    main = "layer 5: the parts together are treated more alike than random ones"
    held = {main: above(less[RANDOM]["all three parts"])}
    held |= {f"layer 5: so is the {part}": above(less[RANDOM][part]) for part in PARTS}
    held["layer 7: the parts' advantage is a smaller share"] = above(m[SMALLER])
    held["layer 5: the parts are treated more alike than places where another has them"] = above(
        less["another's place"]["all three parts"]
    )
    return verdict(held, main)


def draw(result: Result):
    if "layer 5" not in result.measured:
        return {}
    figure = new_figure(7.6, 3.2)
    axes = figure.subplots()
    rows = []
    for part in (*PARTS, RANDOM, *MOVED.values()):
        cells = [
            values[layer].get(part)
            for layer in LAYERS.values()
            for values in (result.measured, FIGURE.paper)
        ]
        rows.append([part, *(" ± ".join(f"{value:.3f}" for value in cell or ()) for cell in cells)])
    header = ["masked", "layer 5: ours", "the paper's", "layer 7: ours", "the paper's"]
    draw_table(axes, header, rows, [1.25, 1, 1, 1, 1], grey=(2, 4))
    title = f"Δ, mean Hamming distance of the signs of change: lower is more alike ({result.n} images; ± over draws of five)"
    axes.set_title(title, fontsize=9)
    return {"tab1.png": figure}
