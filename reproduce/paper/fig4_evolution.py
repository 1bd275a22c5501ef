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

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from torch import Tensor

import zfnet
from reproduce.core.claims import above, below, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablation_images import load_images
from reproduce.paper.ablations import (
    FILES,
    FOLLOWED,
    NO_TREE,
    PAPER_SNAPSHOTS,
    SETTINGS,
    plan_for,
)
from reproduce.paper.trained_rows import row_path, snapshot_paths
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.analysis.responses import Responses, responses
from zfnet.data.dataset import Images
from zfnet.graph import chain, conv_layers
from zfnet.model import Network
from zfnet.plot import LINES, enlarge, mosaic, new_figure, projection_image, show
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
    version=2,
    scales=("paper", "subset", "smoke"),
)  # fmt: skip
TILE = 64  # pixels of a drawn projection
SETTLED = "epoch from which responses correlate with the final ones by 0.9, median"
LATER = "conv5 later than conv1, in factors of 10, with its 95 % interval"


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
    measured, judgments = _measure(correlations, list(snapshots))
    measured["claims"], summary = verdict(judgments)
    if plan.scale == "smoke":
        summary = "not comparable"
    note = (
        f"Table 3's ZFNet of {len(train.classes)} classes, {plan.epochs} epochs at {plan.size} "
        f"pixels; {len(searched):,} of its training images; {len(snapshots)} snapshots at "
        f"log-spaced steps, of which {len(arrays['epochs'])} are drawn; features drawn at random "
        "among those that are active at the end. Each projection is cropped to the receptive "
        "field, with its own contrast. A response is the maximum of a feature map in an image. "
        f"{measured['not compared']} features that are inactive at the end are left out. Intervals "
        "are over features of one training."
    )
    return Result(arrays, measured, summary, n=len(searched), note=note, scale=plan.scale)


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


def correlate(first: Tensor, second: Tensor) -> np.ndarray:
    """Pearson's correlation of each column of (N, C) and (N, C).

    A feature without responses at a snapshot has 0; one without final responses has NaN.
    """
    a, b = (x.double() - x.double().mean(0) for x in (first, second))
    norm = a.norm(dim=0) * b.norm(dim=0)
    r = torch.where(norm > 0, (a * b).sum(0) / norm.clamp_min(1e-300), 0.0)
    return torch.where(b.norm(dim=0) > 0, r, torch.nan).numpy()


def _strongest(
    ctx: Context,
    model: Network,
    images: Images,
    layer: str,
    table: Responses,
    channels: Tensor,
) -> np.ndarray:
    """The projections of the strongest responses of some features: (features, TILE, TILE, 3)."""
    best = table.maximum[:, channels].argmax(0)
    x = images.batch(best).to(ctx.device)
    position = table.position[best, channels].to(ctx.device)
    p = zfnet.project(model, x, layer, channels, position)
    field = zfnet.trace(model, x[:1]).receptive_field(layer).size
    tiles = projection_image(patches_inside(p, x, min(field, x.shape[-1]))[0].cpu())
    return enlarge(tiles, TILE).astype(np.float32)


def settling_epochs(correlations: np.ndarray, epochs: list[float], level: float) -> np.ndarray:
    """The epoch from which on each feature's correlation is at least `level`.

    It is interpolated over the logarithm of the epoch, so that no value is censored: the last
    correlation is 1.

    Args:
        correlations: (snapshots, C), without NaN.
        epochs: The epochs of the snapshots.
        level: The correlation that counts as settled, below 1.

    Returns:
        (C,) epochs.
    """
    settled = np.empty(correlations.shape[1])
    logs = np.log(epochs)
    for c, values in enumerate(correlations.T):
        before = np.flatnonzero(values < level)
        if not len(before):
            settled[c] = epochs[0]
            continue
        i = before[-1]  # the last snapshot that is not settled
        share = (level - values[i]) / (values[i + 1] - values[i])
        settled[c] = np.exp(logs[i] + share * (logs[i + 1] - logs[i]))
    return settled


def _measure(
    correlations: dict[str, np.ndarray], epochs: list[float]
) -> tuple[dict, dict[str, bool | None]]:
    """The measured numbers, and the judgments of the claims."""
    compared = {layer: ~np.isnan(values).any(0) for layer, values in correlations.items()}
    settled = {
        layer: settling_epochs(values[:, compared[layer]], epochs, FIGURE.config["settled"])
        for layer, values in correlations.items()
    }
    logs = {layer: np.log10(values) for layer, values in settled.items()}
    first, *_, last = settled
    later = difference_interval(logs[last], logs[first], seed=FIGURE.seed)
    early = mean_interval(logs[first] - np.log10(epochs[-1] / 2), seed=FIGURE.seed)
    measured: dict = {
        SETTLED: {layer: float(np.median(values)) for layer, values in settled.items()},
        "the same, geometric mean": {n: float(10 ** of.mean()) for n, of in logs.items()},
        LATER: later,
        "correlation with the final responses, mean, by snapshot": {
            layer: [round(float(np.nanmean(row)), 4) for row in values]
            for layer, values in correlations.items()
        },
        "epochs": epochs,
        "not compared": int(sum((~of_layer).sum() for of_layer in compared.values())),
    }
    in_order = np.diff([values.mean() for values in logs.values()])
    return measured, {
        "the features of the last layer settle later than those of the first": above(later),
        "each layer settles later than the one below it": bool((in_order > 0).all()),
        "those of the first layer settle in the first half of the training": below(early),
    }


def draw(result: Result) -> dict[str, Picture]:
    if not result.arrays:
        return {}
    epochs, medians = result.arrays["epochs"].tolist(), result.measured[SETTLED]
    rows = -(-(len(medians) + 1) // 2)
    figure = new_figure(8.4, 2.9 * rows)
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, (layer, median) in zip(panels, medians.items(), strict=False):
        _draw_layer(axes, layer, median, result.arrays, epochs)
    curves, *empty = panels[len(medians) :]
    for axes in empty:
        axes.set_axis_off()
    _draw_curves(curves, result.measured)
    first, *_, last = medians.values()
    order = "before" if result.measured[LATER][0] > 0 else "after"
    figure.suptitle(
        f"Layer 1 settles {order} layer {len(medians)}: from epoch {first:.2g} and {last:.2g} on "
        "(medians)",
        fontsize=11,
    )
    return {"fig4.jpg": figure}


def _draw_layer(
    axes: Axes, layer: str, median: float, arrays: dict[str, np.ndarray], epochs: list[float]
) -> None:
    """One row per feature, with its channel; one column per snapshot, with its epoch."""
    tiles = np.stack([arrays[f"{layer}.{i}"] for i in range(len(epochs))], 1)
    image = mosaic(tiles.reshape(-1, *tiles.shape[2:]), len(epochs), gap=2)
    show(axes, image)
    axes.set_title(f"{layer}: settled from epoch {median:.2g} on (median)", fontsize=10, pad=16)
    step = TILE + 2
    for column, epoch in enumerate(epochs):
        middle = column * step + TILE / 2
        axes.text(middle, -6, f"{epoch:.2g}", ha="center", va="bottom", fontsize=8)
    for row, channel in enumerate(arrays[f"{layer}.channels"]):
        axes.text(-6, row * step + TILE / 2, channel, ha="right", va="center", fontsize=8)


def _draw_curves(axes: Axes, measured: dict) -> None:
    curves = measured["correlation with the final responses, mean, by snapshot"]
    for (layer, values), color in zip(curves.items(), LINES, strict=False):
        axes.semilogx(measured["epochs"], values, marker="o", ms=3, color=color, label=layer)
    axes.axhline(FIGURE.config["settled"], color="0.6", lw=0.8, ls=":")
    axes.set(xlabel="epoch", ylabel="correlation", ylim=(None, 1.02))
    axes.set_title("Responses against the final ones", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
