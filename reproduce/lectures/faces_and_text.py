"""Units of layer 5 that answer faces, and text, though the network was never taught either.

What lectures say of the paper's Fig. 2 and of DeepVis: among the maps of layer 5 are a face detector and a text detector; no
class of ImageNet is called so. Measured as the area under the ROC curve (AUC) of each unit's strongest activation over
images that were annotated for this project, ten each of 28 classes. The best of 256 units is best partly by luck, and a class
may give its images' label away: so the unit is chosen on half of the classes and judged on the other half, both ways. The
control permutes the labels: of all images (what luck gives), and within each class (what the class alone gives).
"""

from pathlib import Path

import numpy as np
import torch
import yaml

from reproduce.core.annotations import find_annotated
from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import patches, subset
from zfnet.analysis.intervals import bootstrap
from zfnet.analysis.responses import responses
from zfnet.analysis.selectivity import auc, best_unit, permute_labels
from zfnet.plot import LINES, enlarge, mosaic, new_figure, photograph, show

FIGURE = Figure(
    id="faces_text",
    title="Units that answer faces and text, which no class names",
    claim="One unit of layer 5 tells images with a face from images without, and one those with text, in classes that had no "
    "part in choosing it: above what the classes alone give.",
    inputs=("model", "images"),
    seed=5,
    time_budget=1,
    config={
        "layers": ["conv1", "conv2", "conv3", "conv4", "conv5"],
        "permutations": 1000,
        "at least": 10,
        "shown": 8,
    },
    files=("faces_and_text.yaml",),
    network="chain",
)
MARKS = Path(__file__).with_name("faces_and_text.yaml")
LABELS = ("face", "text")


def compute(ctx) -> Result:
    config = FIGURE.config
    numbers, marks, missing = annotated(ctx)
    chosen = {}
    for label in LABELS:
        kept = np.array([i for i, mark in enumerate(marks) if counts(mark, label)], dtype=int)
        y = np.array([marks[i][label] for i in kept], dtype=bool)
        names, of = np.unique(
            [ctx.images.names[numbers[i]].split("/")[0] for i in kept], return_inverse=True
        )
        chosen[label] = kept, y, of, first_half(of, y)
        if (
            min([np.bincount(2 * y + chosen[label][3], minlength=4).min(), len(names) // 2])
            < config["at least"]
        ):
            note = f"Fewer than {config['at least']} annotated images of a kind in the corpus. {missing}"
            return Result({}, {"images": len(numbers)}, "not run", n=len(numbers), note=note)
    found = responses(
        ctx.model, subset(ctx, np.array(numbers)), config["layers"], progress=ctx.progress
    )
    arrays, measured = {}, {"images": len(numbers)}
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for label, (kept, y, of, half) in chosen.items():
        positive, first, classes = (torch.from_numpy(array) for array in (y, half, of))
        values = {layer: table.maximum[kept] for layer, table in found.items()}
        best = {layer: best_unit(v, positive, first) for layer, v in values.items()}
        scored = {
            layer: judged(v.numpy(), y, half, of, best[layer].unit.tolist())
            for layer, v in values.items()
        }
        measured[label] = {
            "images with and without": [int(y.sum()), int((~y).sum())],
            "units of layer 5 chosen on the two halves": best["conv5"].unit.tolist(),
            "their AUC where they were chosen": best["conv5"].selection_auc.tolist(),
            "AUC on the other half": scored,
        }
        for name, groups in (("luck", torch.zeros_like(classes)), ("the class alone", classes)):
            labellings = permute_labels(positive, groups, config["permutations"], generator)
            control = best_unit(values["conv5"], labellings, first).held_out_auc.mean(1)
            measured[label][f"{name}: mean and 97.5 %"] = [
                float(control.mean()),
                float(control.quantile(0.975)),
            ]
            arrays[f"{label}.{name}"] = auc(values["conv5"], labellings[:20]).numpy().ravel()
        arrays[f"{label}.units"] = auc(values["conv5"], positive).numpy()
        unit = int(best["conv5"].unit[0])
        order = [
            i for i in values["conv5"][:, unit].argsort(descending=True).tolist() if not half[i]
        ][: config["shown"]]
        index, position = kept[order], found["conv5"].position[kept[order], unit]
        arrays[f"{label}.patches"] = photograph(
            patches(ctx, "conv5", np.array(numbers)[index], position)
        )
        arrays[f"{label}.right"] = y[order]
    claims, outcome = judge(measured)
    note = (
        "The unit is chosen on half of the classes and judged on the other, both ways, and the two AUCs averaged; intervals: "
        "95 %, by bootstrap over classes. Controls choose and judge with labels permuted: of all images (luck), and within "
        "each class (the class alone). Text is judged among images without a face, so that avoiding faces gains nothing. "
        f"Shown: the strongest images of the half that had no part in the choice. {missing}"
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(numbers), note=note)


def annotated(ctx) -> tuple[list[int], list[dict], str]:
    """The annotated images of the corpus, by number, and their marks; a word on the others."""
    marks = yaml.safe_load(MARKS.read_text())["imagenet"]
    found, said = find_annotated(ctx, {name: mark["sha256"] for name, mark in marks.items()})
    return list(found.values()), [marks[name] for name in found], said


def counts(mark: dict, label: str) -> bool:
    """Whether an image has the label marked; text only where it has no face."""
    return label in mark and (label != "text" or mark.get("face") is False)


def first_half(of: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Which images are of the first half of the classes: every other one, in the order of their share of positives."""
    share = np.bincount(of, positive) / np.bincount(of)
    return np.isin(of, np.argsort(share, kind="stable")[::2])


def judged(
    values: np.ndarray, y: np.ndarray, half: np.ndarray, of: np.ndarray, units: list[int]
) -> list[float]:
    """The mean AUC of two units, each on the half that did not choose it, and its interval over classes: [mean, low, high]."""
    pairs = []
    for judging, unit in zip((~half, half), units, strict=True):
        with_, without = np.flatnonzero(y & judging), np.flatnonzero(~y & judging)
        more = values[with_, unit][:, None] - values[without, unit]
        pairs.append(((np.sign(more) + 1) / 2, of[with_], of[without]))

    def mean(drawn: np.ndarray) -> float:
        weight = np.bincount(drawn, minlength=of.max() + 1)
        sums = [
            (weight[a] @ won @ weight[b], weight[a].sum() * weight[b].sum()) for won, a, b in pairs
        ]
        return float(np.mean([won / number if number else np.nan for won, number in sums]))

    classes = of.max() + 1
    return [mean(np.arange(classes)), *bootstrap(mean, classes, seed=FIGURE.seed)]


def judge(m: dict) -> tuple[dict[str, str], str]:
    """A label's unit is found where its AUC on the other half exceeds 97.5 % of the controls'."""
    held = {}
    for label in LABELS:
        for control in ("luck", "the class alone"):
            mean, limit = (
                m[label]["AUC on the other half"]["conv5"][0],
                m[label][f"{control}: mean and 97.5 %"][1],
            )
            held[f"{label}: more than {control}"] = mean > limit
    return verdict(held)


def draw(result: Result):
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    figure = new_figure(13, 5.8)
    for block, label in zip(figure.subfigures(2, 1), LABELS, strict=True):
        spread, layers, strip = block.subplots(1, 3, width_ratios=(1, 1, 1.62))
        bins = np.linspace(0, 1, 41)
        luck = a[f"{label}.luck"]
        spread.hist(
            luck, bins, weights=np.full(len(luck), 1 / 20), color="0.8", label="labels permuted"
        )
        spread.hist(
            a[f"{label}.units"],
            bins,
            histtype="step",
            color=LINES[0],
            linewidth=1.6,
            label="layer 5",
        )
        spread.set(
            xlim=(0.1, 1),
            xlabel=f"AUC for {label}",
            ylabel="units",
            title="All 256 units of layer 5, all images",
        )
        spread.legend(frameon=False, loc="upper left", fontsize=7.5)
        scored = m[label]["AUC on the other half"]
        for place, (mean, low, high) in enumerate(scored.values()):
            layers.errorbar(
                place, mean, yerr=[[mean - low], [high - mean]], fmt="o", color=LINES[0], capsize=3
            )
        for control, style in (("luck", ":"), ("the class alone", "--")):
            layers.axhline(
                m[label][f"{control}: mean and 97.5 %"][0],
                color="0.5",
                linestyle=style,
                label=control,
            )
        layers.set_xticks(range(len(scored)), scored)
        layers.set(
            ylim=(0.3, 1),
            ylabel="AUC on the other half",
            title="Best unit, chosen on other classes",
        )
        layers.legend(frameon=False, loc="lower right", fontsize=7.5)
        tiles = enlarge(a[f"{label}.patches"], 130)
        colours = np.where(a[f"{label}.right"][:, None], (0.0, 0.62, 0.45), (0.84, 0.37, 0.0))[
            :, None, None
        ]
        framed = np.broadcast_to(colours, (len(tiles), 138, 138, 3)).copy()
        framed[:, 4:-4, 4:-4] = tiles
        unit, other = m[label]["units of layer 5 chosen on the two halves"]
        also = f" (those chose {other})" if other != unit else ""
        title = f"Unit {unit}: strongest in classes that did not choose it{also}\n(green: {label}, orange: none)"
        show(strip, mosaic(framed, 4, gap=3), title)
    return {"faces_text.jpg": figure}
