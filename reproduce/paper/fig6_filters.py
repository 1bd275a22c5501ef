"""Figure 6: layer 1 without and with clipped filters, and layers 1 and 2 of AlexNet and ZFNet.

The paper's claims: (a) without clipping their RMS a few filters dominate layer 1, (c) with it they
do not. (b), (d) AlexNet's stride of 4 and filters of 11 pixels leave dead filters, a mix of very
high and very low frequencies, and aliasing in layer 2. (c), (e) ZFNet's 2 and 7 do not.

Ours: three trainings by one configuration, configs/ablations.yaml, from the paper's initial weights
and range of inputs. They are cached; until then each takes 5 GB of disk, and about an hour on a
core. So short a training does not bring a filter from its initial RMS of 0.01 to the paper's limit
of 0.1, so the RMS is clipped at 0.02.
"""

import shutil
from dataclasses import asdict, replace
from typing import cast

import numpy as np
import torch
from matplotlib.figure import Figure as Picture

import zfnet
from reproduce.core.claims import higher, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper import ablations
from reproduce.paper import filter_statistics as stats
from reproduce.paper.ablations import NO_TREE, SETTINGS, Plan, load_images, recipe
from reproduce.paper.trained_rows import save_arrays, train_in
from zfnet.analysis.intervals import mean_interval
from zfnet.analysis.statistics import population
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.model import Network
from zfnet.plot import LINES, enlarge, mosaic, new_figure, projection_image, show
from zfnet.training.config import to_dict
from zfnet.training.evaluate import evaluate
from zfnet.training.loop import DivergedError

# A filter whose RMS is below this share of its layer's median is dead, as in the paper's picture.
FLAT = 0.1
SHORT = {"batch": 16, "lr": 5e-3, "precision": "float32"}  # on a CPU
PLANS = {  # by scale and device: each training's size
    ("paper", "cuda"): ablations.PLANS["paper"],
    ("paper", "cpu"): ablations.PLANS["paper"],
    ("subset", "cuda"): replace(ablations.PLANS["subset"], epochs=32),
    ("subset", "cpu"): replace(ablations.PLANS["smoke"], scale="subset", epochs=40, **SHORT),
    ("smoke", "cuda"): replace(ablations.PLANS["smoke"], classes=10, epochs=2, **SHORT),
    ("smoke", "cpu"): replace(ablations.PLANS["smoke"], classes=10, epochs=2, **SHORT),
}
FIGURE = Figure(
    id="fig6",
    title="Features of layers 1 and 2, before and after the paper's changes",
    claim="Without clipping one filter of layer 1 dominates. AlexNet's layer 1 has more dead "
    "filters and fewer middle frequencies than ZFNet's, and its layer 2 more aliasing.",
    inputs=("tree", "device"),
    seed=6,
    time_budget=3 * 3600,
    config=SETTINGS | {
        "fig6 plans": {
            f"{scale} on {device}": asdict(plan) for (scale, device), plan in PLANS.items()
        },
        "flat below": FLAT,
        "limit": 0.02, "features": 16, "low": 0.1, "high": 0.25, "times chance": 3,
        "stands out": 1.1,
    },
    paper={"limit": 0.1},
    files=("../../configs/ablations.yaml", "../../configs/imagenet.yaml"),
    manual=True,
    trains=True,
    scales=("paper", "subset", "smoke"),
)  # fmt: skip
RUNS = {  # panel -> row of Table 3, and the limit of a filter's RMS
    "ZFNet, not clipped": ("ZFNet", 0.0),
    "AlexNet": ("AlexNet", FIGURE.config["limit"]),
    "ZFNet": ("ZFNet", FIGURE.config["limit"]),
}


BY_EPOCH = "largest RMS of layer 1 over the median, by epoch"
Arrays = dict[str, np.ndarray]


def compute(ctx: Context) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    plan = PLANS[ctx.requested_scale or "subset", ctx.device_type]
    images = load_images(ctx, plan)
    arrays: Arrays = {}
    try:
        for name, (row, limit) in ctx.progress(RUNS.items(), total=len(RUNS)):
            run = train_run(ctx, plan, images, row, limit)
            arrays |= {f"{name}.{key}": values for key, values in run.items()}
    except DivergedError as error:
        note = f"Nothing to analyze: {error}."
        return Result({}, {}, "not comparable", n=0, note=note, scale=plan.scale)
    return judge(arrays, plan, len(images["val"]), len(images["val"].classes))


def train_run(
    ctx: Context, plan: Plan, images: dict[str, Images], row: str, limit: float
) -> Arrays:
    """Train a network, or load it from the cache, and analyze its filters.

    Args:
        ctx: The run.
        plan: The size of the training.
        images: The "train" and "val" images.
        row: The network, a row of Table 3.
        limit: The RMS at which filters are clipped; 0 for none.

    Raises:
        DivergedError: The training diverged in its first epoch.
    """
    config = recipe(plan, row, FIGURE.seed)
    config = replace(
        config,
        model=replace(config.model, input="paper", init="paper"),
        optim=replace(config.optim, clip_rms=limit),
        snapshots=tuple(range(1, plan.epochs + 1)),
    )
    settings = (FIGURE.config["features"], FIGURE.config["high"])
    key = digest(to_dict(config), *settings, *(part.digest for part in images.values()))
    folder = cache_dir() / f"fig6-{key[:20]}"
    path = folder.with_suffix(".npz")
    if not path.exists():
        diverged = train_in(folder, config, images, ctx.device)
        snapshots = [zfnet.load(p) for p in sorted((folder / "snapshots").glob("*.safetensors"))]
        if not snapshots:
            raise DivergedError(f"{row}, limit {limit:g}: {diverged}")
        last, val = snapshots[-1].to(ctx.device), images["val"]
        weights = [cast(torch.nn.Conv2d, model.conv1).weight for model in snapshots]
        save_arrays(
            path,
            filters=np.stack([weight.cpu().numpy() for weight in weights]),
            error=np.array(evaluate(last, val).top1),
            diverged=np.array(diverged),
            **analyze(last, val),
        )
        shutil.rmtree(folder)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def analyze(model: Network, val: Images) -> Arrays:
    """Dead maps of layers 1 and 2, and the projections of layer 2.

    Returns:
        "dead.conv1" and "dead.conv2"; "high", the share of high frequencies of all projections;
        "projections", some of them.
    """
    alive = population(model, val, ("conv1", "conv2"))
    top = zfnet.top_activations(model, val, "conv2", 1)
    parts = [(p.channel, p.activation, p.pixels) for _, _, p in zfnet.project_top(model, val, top)]
    channel, activation, pixels = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    order = channel.argsort()
    excited = pixels[order][activation[order] > 0]  # dead maps have no projection
    # AlexNet's patches are larger, so less leaks into its high band.
    high = stats.band_shares(excited.numpy(), (FIGURE.config["high"],))[:, -1]
    generator = torch.Generator().manual_seed(FIGURE.seed)
    shown = torch.randperm(len(excited), generator=generator)[: FIGURE.config["features"]]
    dead = {f"dead.{layer}": alive[layer].dead.numpy() for layer in alive}
    return dead | {"high": high, "projections": excited[shown.sort().values].numpy()}


def judge(arrays: Arrays, plan: Plan, n: int, classes: int) -> Result:
    """Measure the filters of the three networks, and judge the claims.

    Args:
        arrays: The arrays of `train_run`, by network.
        plan: The size of the trainings.
        n: Number of validation images.
        classes: Number of classes.
    """
    config = FIGURE.config
    measured, last = _measure(arrays)
    accuracy = measured["val top-1, %"]
    learned = min(accuracy.values()) >= config["times chance"] * 100 / classes
    free, _, ours = RUNS
    largest = max(float(stats.rms(filters).max()) for filters in arrays[f"{free}.filters"])
    clips = largest > RUNS[ours][1]
    measured["claims"], summary = verdict(_judgments(measured, last, clips))
    if not learned or plan.scale == "smoke":
        summary = "not comparable"
    note = _note(plan, n, largest)
    if not clips:
        note += " No filter of layer 1 exceeded that after any epoch: (a) does not differ from (c)."
    if not learned:
        note += f" Some network is not {config['times chance']} times as good as chance."
    if diverged := measured["trainings that diverged"]:
        runs = "; ".join(f"{name}: {where}" for name, where in diverged.items())
        note += f" Up to the last good epoch: {runs}."
    return Result(arrays, measured, summary, n=n, note=note, scale=plan.scale)


def _measure(arrays: Arrays) -> tuple[dict, dict[str, np.ndarray]]:
    """The measured numbers by network, and the RMS of the filters after the last epoch."""
    config = FIGURE.config
    filters = {name: arrays[f"{name}.filters"][-1] for name in RUNS}
    last = {name: stats.rms(of_run) for name, of_run in filters.items()}
    limits = (config["low"], config["high"])
    bands = {
        name: stats.band_shares(stats.center(of_run), limits) for name, of_run in filters.items()
    }
    ratio = {name: stats.dominance(arrays[f"{name}.filters"]) for name in RUNS}
    high = {name: arrays[f"{name}.high"] for name in RUNS if arrays[f"{name}.high"].size}
    diverged = {name: str(arrays[f"{name}.diverged"]) for name in RUNS}
    measured = {
        "val top-1, %": {name: 100 - float(arrays[f"{name}.error"]) for name in RUNS},
        "trainings that diverged": {name: where for name, where in diverged.items() if where},
        "largest RMS of a filter of layer 1": {name: float(v.max()) for name, v in last.items()},
        BY_EPOCH: ratio,
        "the same after the last epoch": {name: values[-1] for name, values in ratio.items()},
        "dead filters of layer 1: flat ones": {
            name: int((values < FLAT * np.median(values)).sum()) for name, values in last.items()
        },
        "maps of layers 1 and 2 that no image excites": {
            name: [int(arrays[f"{name}.dead.{layer}"].sum()) for layer in ("conv1", "conv2")]
            for name in RUNS
        },
        "energy of layer 1's filters in low, middle, high frequencies, %": {
            name: [float(v) for v in 100 * shares.mean(0)] for name, shares in bands.items()
        },
        "in middle frequencies, %, with its 95 % interval": {
            name: mean_interval(100 * s[:, 1], seed=FIGURE.seed) for name, s in bands.items()
        },
        "layer-2 projections: energy in high frequencies, %": {
            name: mean_interval(100 * shares, seed=FIGURE.seed) for name, shares in high.items()
        },
    }
    return measured, last


def _judgments(measured: dict, last: dict[str, np.ndarray], clips: bool) -> dict[str, bool | None]:
    """The claims. `clips` says whether the clipping changed anything."""
    free, alexnet, ours = RUNS
    ratio, flat = (
        measured["the same after the last epoch"],
        measured["dead filters of layer 1: flat ones"],
    )
    middle = measured["in middle frequencies, %, with its 95 % interval"]
    high = measured["layer-2 projections: energy in high frequencies, %"]
    larger = ratio[free] / ratio[ours]
    differs = clips and max(larger, 1 / larger) > FIGURE.config["stands out"]
    count = {name: len(values) for name, values in last.items()}
    return {
        "without clipping the largest filter stands out more": larger > 1 if differs else None,
        "AlexNet has more dead filters in layer 1": stats.larger_share(
            flat[alexnet], count[alexnet], flat[ours], count[ours]
        ),
        "ZFNet's filters hold more of the middle frequencies": higher(
            middle[ours], middle[alexnet]
        ),
        "AlexNet's layer-2 projections hold more of the high ones": higher(
            high.get(alexnet), high.get(ours)
        ),
    }


def _note(plan: Plan, n: int, largest: float) -> str:
    config = FIGURE.config
    return (
        f"{plan.epochs} epochs at {plan.size} pixels, {plan.scale} scale, with the paper's range "
        f"of inputs and initial weights. Low is below {config['low']:g}, high above "
        f"{config['high']:g} cycles per pixel in either direction, the most that a stride of 2 "
        f"carries (a stride of 4, half of that). Of all filters the middle {stats.WINDOW} pixels "
        f"count. Flat: an RMS below {FLAT:g} of the layer's median; compared by Fisher's exact "
        f"test. A filter stands out more by a factor of {config['stands out']:g}, our choice, "
        f"because each network is trained once. Maps that none of {n:,} validation images excites "
        f"are counted too. Without clipping, the largest RMS of a filter reached {largest:.2g}; "
        f"we clip at {config['limit']:g}, the paper at {FIGURE.paper['limit']:g}."
    )


def draw(result: Result) -> dict[str, Picture]:
    if not result.arrays:
        return {}
    figure = new_figure(11.5, 7.4)
    upper, lower = figure.subplots(2, 3)
    for axes, letter, name in zip(upper, "abc", RUNS, strict=True):
        # One scale for all filters, so that the largest stands out and flat ones are gray.
        filters = result.arrays[f"{name}.filters"][-1].transpose(0, 2, 3, 1)
        tiles = 0.5 + 0.5 * filters / max(float(np.abs(filters).max()), 1e-12)
        image = mosaic(enlarge(tiles.astype(np.float32), 34), 12, gap=3)
        show(axes, image, f"({letter}) layer 1, {name}")
    for axes, letter, name in zip(lower[:2], "de", ("AlexNet", "ZFNet"), strict=True):
        pixels = result.arrays[f"{name}.projections"]
        image = np.ones((96, 96, 3), np.float32)
        if len(pixels):
            image = mosaic(enlarge(projection_image(pixels), 96), 4, gap=4)
        show(axes, image, f"({letter}) layer-2 projections, {name}")
    ratio = result.measured[BY_EPOCH]
    widths = (4, 1.5, 1.5)  # two curves may be equal
    for (name, values), color, width in zip(ratio.items(), LINES, widths, strict=False):
        epochs = range(1, len(values) + 1)
        lower[2].plot(epochs, values, marker="o", ms=3, lw=width, color=color, label=name)
    lower[2].xaxis.get_major_locator().set_params(integer=True)
    lower[2].set(xlabel="epoch", title="Layer 1: largest RMS over the median")
    lower[2].legend(frameon=False, fontsize=9)
    return {"fig6.jpg": figure}
