"""Figure 5: translating, scaling and turning the picture.

The paper's claim: a small transform changes the first layer's features dramatically, but those of layer 7 little, where
the distance grows quasi-linearly with translation and scale; the probability of the true class is stable under both, but
not under rotation, except for objects with rotational symmetry (its entertainment center peaks every 90 degrees). Rows:
(a) vertical translation, (b) scale, (c) rotation; columns: five images, the distance of the features of layer 1 and of
layer 7 from the untransformed ones, the probability of the true class. Five images prove little, so the numbers and
fig5_average.jpg are means over 200.
"""

from functools import partial

import numpy as np
import torch

from reproduce.core.claims import above, every, higher, verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.analysis.invariance import IDENTITY, SHARE, invariance, r_squared, views
from zfnet.data.images import center, standardize
from zfnet.data.samples import photograph as sample
from zfnet.plot import LINES, band, enlarge, mosaic, new_figure, photograph, show

LAYERS = {"conv1": "layer 1", "fc7": "layer 7"}
FIGURE = Figure(
    id="fig5",
    title="Invariance to translation, scale and rotation",
    claim="A small transform moves layer 1 far and layer 7 little; layer 7 moves quasi-linearly with translation and scale, "
    "under which the class is more stable than under rotation; there it peaks at quarter turns where the object is symmetric.",
    inputs=("model", "images"),
    seed=5,
    time_budget=30,
    config={
        "layers": list(LAYERS), "share": SHARE, "average": 200, "small": {"translation": 5, "scale": 1.05, "rotation": 10},
        "translation": [-60, 60, 5], "scale": [1, 1.8, 0.05], "rotation": [0, 350, 10],  # first, last, step
        "shown": {"translation": [-60, -30, 0, 30, 60], "scale": [1, 1.2, 1.4, 1.6, 1.8], "rotation": [0, 45, 90, 180, 270]},
        # The paper's: lawn mower, Shih-Tzu, African crocodile, African grey; entertainment center, the symmetric one.
        "classes": ["n03649909", "n02086240", "n01697457", "n01817953", "n03290653"],
        "photographs": ["cat", "coffee", "motorcycle", "rocket", "coins"],  # the last stands for the symmetric object
    },
    network="chain",
)  # fmt: skip
UNITS = {
    "translation": "vertical translation (pixels)",
    "scale": "scale (factor)",
    "rotation": "rotation (degrees)",
}
STRAIGHT = ("translation", "scale")  # those with which the distance is to grow quasi-linearly
TURNS = "probability at quarter turns less at the turns between, of the reference's"
SYMMETRIC, ALL, MORE = "symmetric object", "all averaged", "symmetric object less all averaged"
TITLES = {
    "conv1": "layer 1: relative distance",
    "fc7": "layer 7: relative distance",
    "probability": "probability of the class",
}


def compute(ctx) -> Result:
    squares, targets, titles, groups = choose(ctx)
    arrays = {"titles": np.array(titles), **groups}
    for family in IDENTITY:
        f = invariance(
            ctx.model,
            squares,
            targets,
            family,
            grid(family),
            layers=tuple(LAYERS),
            share=SHARE,
            progress=ctx.progress,
        )
        tiles = views(
            squares[: len(titles)], family, FIGURE.config["shown"][family], share=SHARE
        ).flatten(0, 1)
        arrays[f"{family}.tiles"] = (
            (255 * enlarge(photograph(tiles.cpu()), 112)).round().astype(np.uint8)
        )
        arrays |= {f"{family}.{layer}": f.distance[layer].cpu().numpy() for layer in LAYERS}
        arrays[f"{family}.probability"] = f.probability.cpu().numpy()
        arrays["reference"], labels = f.reference.cpu().numpy(), f.reference_label
    shown = zip(
        titles,
        [ctx.model.classes[int(label)] for label in labels],
        arrays["reference"],
        strict=False,
    )
    measured: dict = {
        "shown": {title: {"taken for": name, "probability": float(p)} for title, name, p in shown}
    }
    n, alike = len(groups["averaged"]), len(groups["symmetric"])
    measured |= measure(arrays) if n > 1 else {}
    labelled = ctx.corpus != SAMPLES and n >= 20 and alike >= 2
    symmetric = (
        labelled and ctx.model.wnids[int(targets[len(titles) - 1])] == FIGURE.config["classes"][-1]
    )
    claims, found = (
        judge(measured, symmetric, ctx.shared_fc6) if labelled else ({}, "not comparable")
    )
    note = (
        f"The reference view is the central {SHARE:.0%} of the square at 224 pixels, so that every transform samples inside "
        f"the picture, once; at scale 1.8 it sees the central {SHARE / 1.8:.0%}. Distances are Euclidean, over the length of "
        f"its features (the paper does not divide). Means over {n} images spread over the corpus, 95 % intervals "
        f"by bootstrap over them; R squared: of a line for each. "
        + symmetric
        * f"The symmetric object is {alike} images of its class, which the means leave out. "
        + ctx.shared_fc6
        * "With a layer 6 that sees no places this reproduces the paper in part at best. "
    )
    few = "Too few images, or photographs without labels, which count as what the network takes them for: no proof."
    shows = "Shown: of each of the paper's classes (where the corpus lacks one, of any) the image whose class is most probable."
    note += ctx.differences_from_paper + (shows if labelled else few)
    return Result(arrays, measured | {"claims": claims}, found, n=n, note=note)


def grid(family: str) -> np.ndarray:
    first, last, step = FIGURE.config[family]
    return first + step * np.arange(round((last - first) / step) + 1)


def choose(ctx) -> tuple[torch.Tensor, torch.Tensor, list[str], dict[str, np.ndarray]]:
    """Squares (N, 3, S, S) and their classes, the shown ones first; these ones' titles; who is averaged, who symmetric."""
    config, images, model = FIGURE.config, ctx.images, ctx.model

    def probability(squares: torch.Tensor) -> torch.Tensor:
        parts = [
            model(views(part, "scale", [1.0], share=SHARE)[:, 0]) for part in squares.split(16)
        ]
        return torch.cat(parts).softmax(1).cpu()

    def raw(pixels: torch.Tensor) -> torch.Tensor:
        return standardize(pixels.permute(0, 3, 1, 2)).to(ctx.device)

    if ctx.corpus == SAMPLES:
        names = config["photographs"]
        squares = raw(
            torch.from_numpy(np.stack([np.asarray(center(sample(name))) for name in names]))
        )
        return (
            squares,
            probability(squares).argmax(1),
            names,
            {"averaged": np.arange(5), "symmetric": np.arange(4, 5)},
        )
    averaged = (
        np.linspace(0, len(images) - 1, min(len(images), config["average"])).round().astype(int)
    )
    wanted = [
        model.wnids.index(w)
        for w in config["classes"]
        if w in model.wnids and model.wnids.index(w) in images.labels
    ]
    whole = len(wanted) == len(config["classes"])
    pool = np.flatnonzero(np.isin(images.labels, wanted)) if whole else averaged
    true = probability(raw(images.raw(pool))).numpy()[np.arange(len(pool)), images.labels[pool]]
    best: dict[int, int] = {}  # class -> its most probable image, the most probable class first
    for i in pool[np.argsort(-true, kind="stable")]:
        best.setdefault(int(images.labels[i]), int(i))
    shown = [best[label] for label in (wanted if whole else list(best)[:5])]
    symmetric = np.flatnonzero(images.labels == images.labels[shown[-1]])
    averaged = np.setdiff1d(averaged, symmetric)
    chosen = np.concatenate([shown, averaged, symmetric])
    _, who, alike = np.split(np.arange(len(chosen)), np.cumsum([len(shown), len(averaged)]))
    titles = [model.classes[images.labels[i]] for i in shown]
    return (
        raw(images.raw(chosen)),
        torch.from_numpy(images.labels[chosen]),
        titles,
        {"averaged": who, "symmetric": alike},
    )


def measure(a: dict[str, np.ndarray]) -> dict:
    """The claims as numbers, each as [mean, low, high], over the averaged images; the last also over the symmetric object's."""
    who, measured, mean = a["averaged"], {}, partial(mean_interval, seed=FIGURE.seed)
    for family, value in FIGURE.config["small"].items():
        moved = {layer: a[f"{family}.{layer}"][who] for layer in LAYERS}
        near = {
            layer: d[:, np.isclose(abs(grid(family)), value)].mean(1) for layer, d in moved.items()
        }
        measured[f"relative distance, {family} {value}"] = {
            **{words: mean(near[layer]) for layer, words in LAYERS.items()},
            "layer 1 less layer 7": mean(near["conv1"] - near["fc7"]),
            **{
                f"share of the largest, {words}": mean(near[layer] / moved[layer].max(1))
                for layer, words in LAYERS.items()
            },
        }
    for family in STRAIGHT:
        x = torch.from_numpy(abs(grid(family)))
        straight = {
            w: r_squared(x, torch.from_numpy(a[f"{family}.{layer}"][who])).numpy()
            for layer, w in LAYERS.items()
        }
        measured[f"R squared of distance against {family}"] = {
            w: mean(r) for w, r in straight.items()
        }
    kept = {
        f: a[f"{f}.probability"][who][:, grid(f) != unchanged].mean(1)
        for f, unchanged in IDENTITY.items()
    }
    base = a["reference"][who]
    measured["probability over the range, of the reference's"] = {
        family: mean(p, base) for family, p in kept.items()
    } | {
        f"{family} less rotation": mean(kept[family] - kept["rotation"], base)
        for family in STRAIGHT
    }
    turned, base, alike = a["rotation.probability"], a["reference"], a["symmetric"]
    quarters = np.isin(grid("rotation"), (90, 180, 270))
    between = np.isin(grid("rotation"), (40, 50, 130, 140, 220, 230, 310, 320))
    peak = turned[:, quarters].mean(1) - turned[:, between].mean(1)
    measured[TURNS] = {
        name: mean(peak[group], base[group]) for name, group in ((SYMMETRIC, alike), (ALL, who))
    }
    measured[TURNS][MORE] = difference_interval(
        peak[alike], peak[who], (base[alike], base[who]), seed=FIGURE.seed
    )
    return measured


def judge(m: dict, symmetric: bool = True, tied: bool = False) -> tuple[dict[str, str], str]:
    """Which claims hold, by their intervals; reproduced if all do and layer 6 is not `tied`."""
    small = [
        m[f"relative distance, {family} {value}"]
        for family, value in FIGURE.config["small"].items()
    ]
    lines = [m[f"R squared of distance against {family}"] for family in STRAIGHT]
    straight = [
        test
        for of in lines
        for test in (above(of["layer 7"], 0.9), higher(of["layer 7"], of["layer 1"]))
    ]
    stable = m["probability over the range, of the reference's"]
    held = {
        "a small transform moves layer 1 more than layer 7": every(above(s["layer 1 less layer 7"]) for s in small),
        "layer 7 is quasi-linear: R squared of 0.9, and above layer 1's": every(straight),
    } | {
        f"the class is more stable under {family} than under rotation": above(stable[f"{family} less rotation"])
        for family in STRAIGHT
    }  # fmt: skip
    if symmetric:
        peak = "a symmetric object's class peaks at quarter turns, more than others'"
        held[peak] = every(above(m[TURNS][kind]) for kind in (SYMMETRIC, MORE))
    claims, found = verdict(held)
    return claims, "partial" if tied and found == "reproduced" else found


def draw(result: Result):
    a, seen = result.arrays, result.measured["shown"]
    labels = [
        name + f" (taken for {entry['taken for']})" * (name != entry["taken for"])
        for name, entry in seen.items()
    ]
    five, mean = new_figure(14, 8.8), new_figure(12, 6)
    rows, columns = (
        five.subplots(3, 4, width_ratios=(0.9, 1, 1, 1)),
        mean.subplots(2, 3, sharey="row").T,
    )
    top = 1.05 * max(a[f"{family}.probability"][: len(labels)].max() for family in IDENTITY)
    for (tiles, *panels), (upper, lower), family, letter in zip(
        rows, columns, IDENTITY, "abc", strict=True
    ):
        values, x = ", ".join(f"{v:g}" for v in FIGURE.config["shown"][family]), grid(family)
        show(tiles, mosaic(a[f"{family}.tiles"] / 255, 5, gap=2), f"({letter}) {family}: {values}")
        for n, (label, colour) in enumerate(zip(labels, LINES, strict=False)):
            tiles.text(-10, 114 * n + 56, "■", color=colour, ha="right", va="center", fontsize=14)
            for panel, key in zip(panels, TITLES, strict=True):
                panel.plot(x, a[f"{family}.{key}"][n], color=colour, label=label)
        for panel, (key, title) in zip(panels, TITLES.items(), strict=True):
            panel.set(title=title, ylim=(0, top if key == "probability" else None))
        for (layer, words), colour in zip(LAYERS.items(), LINES, strict=False):
            band(upper, x, a[f"{family}.{layer}"][a["averaged"]], colour, words)
        groups = {
            "averaged": f"{result.n} images",
            "symmetric": f"{a['titles'][-1]} ({len(a['symmetric'])})",
        }
        for (group, label), colour in zip(groups.items(), LINES[2:], strict=False):
            band(
                lower,
                x,
                a[f"{family}.probability"][a[group]],
                colour,
                label,
                over=a["reference"][a[group]],
            )
        for panel in (*panels, upper, lower):
            panel.set(xlabel=UNITS[family], xlim=(x[0], x[-1]))
            panel.set_xticks(range(0, 351, 90)) if family == "rotation" else None
    for panel in (
        *rows[:, 1:].flat,
        *columns.flat,
    ):  # the rows of the second share theirs, so after all are drawn
        panel.set_ylim(bottom=0)
    five.legend(
        *rows[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False
    )
    columns[0, 0].set_ylabel("relative distance of features")
    columns[0, 1].set_ylabel("probability of the class, over\nits mean in the reference view")
    columns[0, 0].legend(frameon=False)
    columns[1, 1].legend(frameon=False)
    mean.suptitle("Means over images, with their 95 % intervals")
    return {"fig5.jpg": five, "fig5_average.jpg": mean}
