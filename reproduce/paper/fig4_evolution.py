"""Figure 4: how features evolve during training.

The paper's claim: the strongest activation of a feature over the training images, projected to
pixels, shows that lower layers converge within a few epochs, and upper ones only after many.

Ours: Table 3's ZFNet, which keeps snapshots at log-spaced steps from within its first epoch to the
end (ablations.py). Figure 4 trains nothing; train Table 3 first:

    python -m reproduce run tab3 fig4 --data PATH

Convergence is measured by the correlation, over images, of a feature's responses at a snapshot with
those at the end. It is 1 at the end, so each feature has an epoch from which on it is at least 0.9,
interpolated between snapshots.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

import zfnet
from reproduce.core.claims import above, below, explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablation_images import load_images
from reproduce.paper.ablations import (
    FILES,
    FOLLOWED,
    NO_TREE,
    PAPER_SNAPSHOTS,
    SETTINGS,
    TOO_SMALL,
    plan_for,
)
from reproduce.paper.fig4_pictures import CORRELATION, SETTLED, TILE, draw_evolution
from reproduce.paper.settling import correlate, settling_epochs
from reproduce.paper.trained_rows import row_path, snapshot_paths
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.analysis.responses import Responses, responses
from zfnet.data.dataset import Images
from zfnet.graph import chain, conv_layers
from zfnet.model import Network
from zfnet.plot import enlarge, projection_image
from zfnet.projection import patches_inside

FIGURE = Figure(
    id="fig4",
    title="Evolution of features during training",
    claim="The lower layers' features settle within a few epochs, the upper ones' only after many.",
    inputs=("tree", "device"),
    seed=4,
    time_budget=3600,
    paper={"epochs shown": list(PAPER_SNAPSHOTS)},
    # The number of training images to search; 0 for all.
    config=SETTINGS | {
        "features": 6, "shown": 8, "settled": 0.9,
        "images": {"paper": 0, "subset": 5000, "smoke": 500},
    },
    files=FILES,
    manual=True,
    version=3,
    scales=("paper", "subset", "smoke"),
)  # fmt: skip
LATER = "conv5 minus conv1, log10 of the settling epoch, with 95 % interval"
INACTIVE = "features that are inactive at the end"


def compute(ctx: Context) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    plan = plan_for(ctx)
    images = load_images(ctx, plan)
    snapshots = snapshot_paths(row_path(plan, images, *FOLLOWED))
    if len(snapshots) < 3:
        note = f"Table 3's ZFNet is not trained at the scale {plan.scale!r}; run tab3 first."
        return Result({}, {}, "not run", n=0, note=note, scale=plan.scale)
    train = images["train"]
    count = FIGURE.config["images"][plan.scale] or len(train)
    searched = train.subset(np.linspace(0, len(train) - 1, min(count, len(train))).astype(int))
    arrays, correlations = _follow(ctx, snapshots, searched)
    measured, judgments, evidence = _measure(correlations, list(snapshots))
    measured["claims"], summary = verdict(judgments)
    reason = explain(judgments, evidence)
    if plan.scale == "smoke":
        summary, reason = "not comparable", TOO_SMALL
    first, *_, last = measured[SETTLED]
    finding = (
        f"Half of layer {first[-1]}'s features settle by epoch {measured[SETTLED][first]:.2g}, and "
        f"half of layer {last[-1]}'s by epoch {measured[SETTLED][last]:.2g} of {plan.epochs}."
    )
    note = (
        f"Table 3's ZFNet of {len(train.classes)} classes, {plan.epochs} epochs at {plan.size} "
        f"pixels; {len(searched):,} of its training images; {len(snapshots)} snapshots at "
        f"log-spaced steps, of which {len(arrays['epochs'])} are drawn; features drawn at random "
        "among those that are active at the end. Each projection is cropped to the receptive "
        "field, with its own contrast. A response is the maximum of a feature map in an image. "
        f"{measured[INACTIVE]} features that are inactive at the end are left out. Intervals "
        "are over features of one training."
    )
    n = len(searched)
    return Result(arrays, measured, summary, n, note, plan.scale, finding, reason)


def _follow(
    ctx: Context, snapshots: dict[float, Path], images: Images
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Follow features over the snapshots, from the last to the first.

    Returns:
        The arrays to draw, and by layer the correlations (snapshots, C) of each feature's responses
        with its final ones; NaN for a feature that is inactive at the end.
    """
    epochs = list(snapshots)
    rows = np.linspace(0, len(epochs) - 1, min(len(epochs), FIGURE.config["shown"]))
    shown = [epochs[row] for row in rows.round().astype(int)]
    arrays: dict[str, np.ndarray] = {"epochs": np.array(shown)}
    final: dict[str, Responses] = {}
    correlations: dict[str, list[np.ndarray]] = {}
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for epoch in ctx.progress(epochs[::-1], total=len(epochs), desc="snapshots"):
        model = zfnet.load(snapshots[epoch]).to(ctx.device)
        layers = conv_layers(chain(model))
        tables = responses(model, images, layers)
        if not final:
            final = tables
            for layer, table in final.items():
                active = torch.where(table.maximum.std(0) > 0)[0]
                order = torch.randperm(len(active), generator=generator)
                chosen = active[order[: FIGURE.config["features"]]].sort().values
                arrays[f"{layer}.channels"] = chosen.numpy()
        for layer, table in tables.items():
            values = correlate(table.maximum, final[layer].maximum)
            correlations.setdefault(layer, []).insert(0, values)
            if epoch in shown:
                channels = torch.from_numpy(arrays[f"{layer}.channels"])
                tiles = _strongest(ctx, model, images, layer, table, channels)
                arrays[f"{layer}.{shown.index(epoch)}"] = tiles
    return arrays, {layer: np.stack(rows) for layer, rows in correlations.items()}


def _strongest(
    ctx: Context, model: Network, images: Images, layer: str, table: Responses, channels: Tensor
) -> np.ndarray:
    """The projections of the strongest responses of some features: (features, TILE, TILE, 3)."""
    best = table.maximum[:, channels].argmax(0)
    x = images.batch(best).to(ctx.device)
    position = table.position[best, channels].to(ctx.device)
    p = zfnet.project(model, x, layer, channels, position)
    field = zfnet.trace(model, x[:1]).receptive_field(layer).size
    tiles = projection_image(patches_inside(p, x, min(field, x.shape[-1]))[0].cpu())
    return enlarge(tiles, TILE).astype(np.float32)


def _measure(
    correlations: dict[str, np.ndarray], epochs: list[float]
) -> tuple[dict, dict[str, bool | None], dict[str, str]]:
    """The measured numbers, the judgments of the claims, and what was measured for each."""
    compared = {layer: ~np.isnan(values).any(0) for layer, values in correlations.items()}
    settled = {
        layer: settling_epochs(values[:, compared[layer]], epochs, FIGURE.config["settled"])
        for layer, values in correlations.items()
    }
    logs = {layer: np.log10(values) for layer, values in settled.items()}
    mean = {layer: float(10 ** of_layer.mean()) for layer, of_layer in logs.items()}
    first, *_, last = settled
    later = difference_interval(logs[last], logs[first], seed=FIGURE.seed)
    early = mean_interval(logs[first] - np.log10(epochs[-1] / 2), seed=FIGURE.seed)
    steps = {pair: mean[pair[1]] - mean[pair[0]] for pair in pairwise(mean)}
    low, high = min(steps, key=lambda pair: steps[pair])
    measured: dict = {
        SETTLED: {layer: float(np.median(values)) for layer, values in settled.items()},
        "settling epoch, geometric mean": mean,
        LATER: later,
        CORRELATION: {
            layer: [round(float(np.nanmean(row)), 4) for row in values]
            for layer, values in correlations.items()
        },
        "epochs": epochs,
        INACTIVE: int(sum((~of_layer).sum() for of_layer in compared.values())),
    }
    judgments = {
        "the features of the last layer settle later than those of the first": above(later),
        "each layer settles later than the one below it": steps[low, high] > 0,
        "those of the first layer settle in the first half of the training": below(early),
    }
    evidence = (
        f"{last} settles at epoch {mean[last]:.2g} and {first} at {mean[first]:.2g}",
        f"{high} settles at epoch {mean[high]:.2g}, not after {low} ({mean[low]:.2g})",
        f"{first} settles at epoch {mean[first]:.2g} of {epochs[-1]:g}",
    )
    return measured, judgments, dict(zip(judgments, evidence, strict=True))


def draw(result: Result) -> dict[str, Picture]:
    if not result.arrays:
        return {}
    return {"fig4.jpg": draw_evolution(result, FIGURE.config["settled"])}
