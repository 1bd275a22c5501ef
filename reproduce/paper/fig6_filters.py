"""Figure 6: layer 1 without and with clipped filters, and layers 1 and 2 of AlexNet and ZFNet.

The paper's claims: (a) without clipping their RMS a few filters dominate layer 1, (c) with it they
do not. (b), (d) AlexNet's stride of 4 and filters of 11 pixels leave dead filters, a mix of very
high and very low frequencies, and aliasing in layer 2. (c), (e) ZFNet's 2 and 7 do not.

Ours: three trainings on miniImageNet's 98 classes at 96 pixels, from the paper's initial weights,
with its range of inputs and its crops. On a CPU (a) and (b) are trained side by side, then (c). A
run that is interrupted continues where it was.

    python -m reproduce run fig6 --data PATH

Without clipping, the largest filter of so short a training may stay below the paper's limit of 0.1.
So (c) is clipped at half the largest RMS of (a), and at most at 0.1. AlexNet is not clipped, as
Krizhevsky's was not.
"""

from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure as Picture

from reproduce.core.claims import explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper import filter_statistics as stats
from reproduce.paper.ablation_images import load_images
from reproduce.paper.ablations import FILES, NO_TREE, SETTINGS, TOO_SMALL, Plan
from reproduce.paper.fig6_pictures import LIMIT, draw_filters
from reproduce.paper.filter_claims import (
    ACCURACY,
    ALEXNET,
    DIVERGED,
    FREE,
    LARGEST,
    OURS,
    RUNS,
    judge_filters,
    measure,
    summarize,
)
from reproduce.paper.filter_training import (
    PLANS,
    Arrays,
    result_path,
    train_filters,
    train_missing,
    training_config,
)
from reproduce.paper.side_by_side import run_side_by_side
from zfnet.data.dataset import Images
from zfnet.training.loop import DivergedError

FIGURE = Figure(
    id="fig6",
    title="Features of layers 1 and 2, before and after the paper's changes",
    claim="Without clipping one filter of layer 1 dominates. AlexNet's layer 1 has more dead "
    "filters and fewer middle frequencies than ZFNet's, and its layer 2 more aliasing.",
    inputs=("tree", "device"),
    seed=6,
    time_budget=5 * 3600,
    config=SETTINGS | {
        "fig6 plans": {scale: asdict(plan) for scale, plan in PLANS.items()},
        "flat below": stats.FLAT, "untrained above": stats.UNTRAINED,
        "low": 0.1, "high": 0.25, "times chance": 3, "stands out": 1.1,
    },
    paper={LIMIT: 0.1},
    files=FILES,
    manual=True,
    version=3,
    trains=True,
    scales=("paper", "subset", "smoke"),
    headline=(
        "RMS at which filters are clipped",
        "largest RMS of layer 1 over the median, at the end: ZFNet, not clipped",
        "largest RMS of layer 1 over the median, at the end: ZFNet",
        "dead filters of layer 1: flat or never trained: AlexNet",
        "dead filters of layer 1: flat or never trained: ZFNet",
        "energy of layer-2 projections in high frequencies, %, with 95 % interval: AlexNet",
        "energy of layer-2 projections in high frequencies, %, with 95 % interval: ZFNet",
    ),
)  # fmt: skip


def compute(ctx: Context) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    plan = PLANS[ctx.requested_scale or "subset"]
    images = load_images(ctx, plan)
    try:
        arrays, limit = _train(ctx, plan, images)
    except DivergedError as error:
        note = f"Nothing to analyze: {error}."
        return Result({}, {}, "not comparable", n=0, note=note, scale=plan.scale)
    return judge(arrays, limit, plan, len(images["val"]), len(images["val"].classes))


def _train(ctx: Context, plan: Plan, images: dict[str, Images]) -> tuple[Arrays, float]:
    """The arrays of the three networks, and the limit of the RMS of (c)."""
    configs = {
        name: training_config(plan, RUNS[name], 0.0, FIGURE.seed) for name in (FREE, ALEXNET)
    }
    missing = [name for name in configs if not result_path(configs[name], images).exists()]
    if plan.parallel > 1 and len(missing) > 1 and ctx.device_type == "cpu":
        tasks = [(ctx.model_name, ctx.data, plan, RUNS[name], 0.0, FIGURE.seed) for name in missing]
        run_side_by_side(train_missing, tasks, plan.parallel, ctx.progress)
    runs = {name: train_filters(ctx, images, config) for name, config in configs.items()}
    largest = float(stats.rms(runs[FREE]["filters"][-1]).max())
    limit = float(f"{min(FIGURE.paper[LIMIT], largest / 2):.2g}")
    config = training_config(plan, RUNS[OURS], limit, FIGURE.seed)
    runs[OURS] = train_filters(ctx, images, config)
    return {f"{n}.{key}": v for n, run in runs.items() for key, v in run.items()}, limit


def judge(arrays: Arrays, limit: float, plan: Plan, n: int, classes: int) -> Result:
    """Measure the filters of the three networks, and judge the claims.

    Args:
        arrays: The arrays of `train_filters`, by network.
        limit: The limit of the RMS of (c).
        plan: The size of the trainings.
        n: Number of validation images.
        classes: Number of classes.
    """
    config, count = FIGURE.config, len(arrays[f"{OURS}.initial"])
    limits = (config["low"], config["high"])
    measured: dict[str, Any] = {**measure(arrays, limits, FIGURE.seed), LIMIT: limit}
    learned = min(measured[ACCURACY].values()) >= config["times chance"] * 100 / classes
    judgments, evidence = judge_filters(measured, count, config["stands out"])
    measured["claims"], summary = verdict(judgments)
    reason, note = explain(judgments, evidence), _note(plan, n, measured)
    if not learned:
        summary = "not comparable"
        reason = f"A network is not {config['times chance']} times as good as chance."
    if plan.scale == "smoke":
        summary, reason = "not comparable", TOO_SMALL
    if diverged := measured[DIVERGED]:
        runs = "; ".join(f"{name}: {where}" for name, where in diverged.items())
        note += f" Up to the last good epoch: {runs}."
    finding = summarize(measured, count)
    return Result(arrays, measured, summary, n, note, plan.scale, finding, reason)


def _note(plan: Plan, n: int, measured: dict) -> str:
    config, largest = FIGURE.config, measured[LARGEST][FREE]
    return (
        f"{plan.epochs} epochs at {plan.size} pixels, {plan.scale} scale, with the paper's inputs, "
        "initial weights and crops. Without clipping, the largest RMS of a filter is "
        f"{largest:.2g}; (c) is clipped at {measured[LIMIT]:g}, the paper's network at "
        f"{FIGURE.paper[LIMIT]:g}. Low is below {config['low']:g}, high above "
        f"{config['high']:g} cycles per pixel in either direction, the most that a stride of 2 "
        f"carries (a stride of 4, half of that). Of all filters the middle {stats.WINDOW} pixels "
        f"count. A filter is dead if its RMS is below {stats.FLAT:g} of the layer's median (flat), "
        f"or if more than {stats.UNTRAINED:.0%} of its energy is that of its initial weights "
        "(never trained); counts are compared by Fisher's exact test. A filter stands out more by "
        f"a factor of {config['stands out']:g}, our choice, because each network is trained once. "
        f"Maps that none of {n:,} validation images excites are counted too. Layer 2 is shown by "
        "units whose receptive field is inside the image."
    )


def draw(result: Result) -> dict[str, Picture]:
    return {"fig6.jpg": draw_filters(result)} if result.arrays else {}
