"""Figure 6: layer 1 without and with clipped filters, and AlexNet's layers 1 and 2 beside ZFNet's.

The paper's claims: (a) without clipping their RMS a few filters dominate layer 1, (c) with it they do not; (b), (d) AlexNet's
stride of 4 and filters of 11 leave dead filters, a mix of very high and very low frequencies, and aliasing in layer 2; (c), (e)
ZFNet's 2 and 7 do not. Ours: three trainings by one recipe, configs/ablations.yaml, from the paper's first weights and range
of inputs, kept in the cache once they are done; on a core each takes about an hour, and 5 GB of disk until then. So short a
training does not bring a filter from the RMS of 0.01 that it starts with to the paper's limit of 0.1: clipped is at 0.02.
"""

import shutil
from dataclasses import asdict, replace

import numpy as np
import torch

import zfnet
from reproduce.core.claims import higher, verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper import ablations
from reproduce.paper.ablations import NO_TREE, SETTINGS, keep, load, recipe, trained_in
from reproduce.paper.filter_statistics import WINDOW, dominance, middle, more, rms, shares
from zfnet.analysis.intervals import mean_interval
from zfnet.analysis.statistics import population
from zfnet.data.cache import cache_dir, digest
from zfnet.plot import LINES, enlarge, mosaic, new_figure, projection_image, show
from zfnet.training.config import to_dict
from zfnet.training.evaluate import evaluate
from zfnet.training.loop import DivergedError

FLAT = 0.1  # a filter whose RMS is below this share of its layer's median shows nothing: dead, as the paper's picture has it
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
    claim="Without clipping one filter of layer 1 dominates; AlexNet's layer 1 has more dead filters and fewer middle "
    "frequencies than ZFNet's, and its layer 2 more aliasing.",
    inputs=("tree", "device"),
    seed=6,
    time_budget=3 * 3600,
    config=SETTINGS | {
        "fig6 plans": {f"{scale} on {kind}": asdict(plan) for (scale, kind), plan in PLANS.items()}, "flat below": FLAT,
        "limit": 0.02, "features": 16, "low": 0.1, "high": 0.25, "times chance": 3, "stands out": 1.1,
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


def compute(ctx) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    plan = PLANS[ctx.requested_scale or "subset", ctx.device_type]
    images = {split: load(ctx, plan, split) for split in ("train", "val")}
    try:
        found = {
            name: short_run(ctx, plan, images, *run)
            for name, run in ctx.progress(RUNS.items(), total=3)
        }
    except DivergedError as error:
        return Result(
            {}, {}, "not comparable", n=0, note=f"Nothing to look at: {error}.", scale=plan.scale
        )
    arrays = {
        f"{name}.{key}": value for name, arrays in found.items() for key, value in arrays.items()
    }
    return judge(arrays, plan, len(images["val"]), len(images["val"].classes))


def short_run(ctx, plan, images: dict, row: str, limit: float) -> dict[str, np.ndarray]:
    """A training's filters of layer 1 by epoch, up to where it diverged, dead maps, and layer 2's projections; kept."""
    config = recipe(plan, row, FIGURE.seed)
    config = replace(
        config, model=replace(config.model, input="paper", init="paper"), optim=replace(config.optim, clip_rms=limit),
        snapshots=tuple(range(1, plan.epochs + 1)),
    )  # fmt: skip
    key = digest(
        to_dict(config),
        FIGURE.config["features"],
        FIGURE.config["high"],
        *(part.digest for part in images.values()),
    )
    folder = cache_dir() / f"fig6-{key[:20]}"
    path = folder.with_suffix(".npz")
    if not path.exists():
        diverged = trained_in(folder, config, images, ctx.device)
        snapshots = [zfnet.load(p) for p in sorted((folder / "snapshots").glob("*.safetensors"))]
        if not snapshots:
            raise DivergedError(f"{row}, limit {limit:g}: {diverged}")
        last = snapshots[-1].to(ctx.device)
        error = np.array(evaluate(last, images["val"]).top1)
        filters = np.stack([model.conv1.weight.cpu().numpy() for model in snapshots])
        keep(
            path,
            filters=filters,
            error=error,
            diverged=np.array(diverged),
            **looked_at(last, images["val"]),
        )
        shutil.rmtree(folder)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def looked_at(model, val) -> dict[str, np.ndarray]:
    """Dead maps of layers 1 and 2, and projections of layer 2: some patches to show, the spectrum's shares of all."""
    alive = population(model, val, ("conv1", "conv2"))
    top = zfnet.top_activations(model, val, "conv2", 1)
    parts = [(p.channel, p.activation, p.pixels) for _, _, p in zfnet.project_top(model, val, top)]
    channel, activation, pixels = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    order = channel.argsort()
    every = pixels[order][activation[order] > 0]  # of dead maps there is nothing to see
    high = shares(every.numpy(), (FIGURE.config["high"],))[
        :, -1
    ]  # AlexNet's patches are larger: less leaks into its high band
    shown = torch.randperm(len(every), generator=torch.Generator().manual_seed(FIGURE.seed))[
        : FIGURE.config["features"]
    ]
    dead = {f"dead.{layer}": alive[layer].dead.numpy() for layer in alive}
    return dead | {"high": high, "projections": every[shown.sort().values].numpy()}


def judge(arrays: dict[str, np.ndarray], plan, n: int, classes: int) -> Result:
    limits = (FIGURE.config["low"], FIGURE.config["high"])
    free, alex, ours = RUNS
    spectra = {name: shares(middle(arrays[f"{name}.filters"][-1]), limits) for name in RUNS}
    ratio = {name: dominance(arrays[f"{name}.filters"]) for name in RUNS}
    dead = {
        name: [int(arrays[f"{name}.dead.{layer}"].sum()) for layer in ("conv1", "conv2")]
        for name in RUNS
    }
    last = {name: rms(arrays[f"{name}.filters"][-1]) for name in RUNS}
    band = {name: mean_interval(100 * spectra[name][:, 1], seed=FIGURE.seed) for name in RUNS}
    fast = {
        name: mean_interval(100 * arrays[f"{name}.high"], seed=FIGURE.seed)
        for name in RUNS
        if arrays[f"{name}.high"].size
    }
    flat = {name: int((values < FLAT * np.median(values)).sum()) for name, values in last.items()}
    largest = max(float(rms(filters).max()) for filters in arrays[f"{free}.filters"])
    acted = largest > RUNS[ours][1]
    accuracy = {name: 100 - float(arrays[f"{name}.error"]) for name in RUNS}
    learnt = min(accuracy.values()) >= FIGURE.config["times chance"] * 100 / classes
    filters, apart = {name: len(found) for name, found in last.items()}, FIGURE.config["stands out"]
    larger = ratio[free][-1] / ratio[ours][-1]
    differ = acted and max(larger, 1 / larger) > apart
    diverged = {
        name: str(arrays[f"{name}.diverged"]) for name in RUNS if arrays[f"{name}.diverged"]
    }
    measured: dict = {
        "val top-1, %": accuracy,
        "trainings that diverged": diverged,
        "largest RMS of a filter of layer 1": {
            name: float(found.max()) for name, found in last.items()
        },
        "largest RMS of layer 1 over the median, by epoch": ratio,
        "the same after the last epoch": {name: values[-1] for name, values in ratio.items()},
        "dead filters of layer 1: flat ones": flat,
        "maps of layers 1 and 2 that no image excites": dead,
        "energy of layer 1's filters in low, middle, high frequencies, %": {
            name: [float(v) for v in 100 * s.mean(0)] for name, s in spectra.items()
        },
        "in middle frequencies, %, with its 95 % interval": band,
        "layer-2 projections: energy in high frequencies, %": fast,
    }
    held = {
        "without clipping the largest filter stands out more": larger > 1 if differ else None,
        "AlexNet has more dead filters in layer 1": more(
            flat[alex], filters[alex], flat[ours], filters[ours]
        ),
        "ZFNet's filters hold more of the middle frequencies": higher(band[ours], band[alex]),
        "AlexNet's layer-2 projections hold more of the high ones": higher(
            fast.get(alex), fast.get(ours)
        ),
    }
    measured["claims"], said = verdict(held)
    note = (
        f"{plan.epochs} epochs at {plan.size} pixels, {plan.scale} scale, with the paper's range of inputs and first "
        f"weights; low is below {limits[0]:g}, high above "
        f"{limits[1]:g} cycles a pixel in either direction, the most that a stride of 2 carries; of 4, half of that; of all "
        f"filters the middle {WINDOW} pixels count. Flat: an RMS below {FLAT:g} of the layer's median; more, by Fisher's "
        f"exact test. A filter stands out more by a factor of {apart:g}: ours, for each network is trained once. Maps that "
        f"none of {n:,} validation images excites are counted too. Not clipped, the largest RMS of a filter came to "
        f"{largest:.2g}; clipped is at {RUNS[ours][1]:g}, in the paper at {FIGURE.paper['limit']:g}."
    )
    if not acted:
        note += " After no epoch a filter of layer 1 was above that: (a) does not differ from (c)."
    if not learnt or plan.scale == "smoke":
        said = "not comparable"
    if not learnt:
        note += f" Some network is not {FIGURE.config['times chance']} times as good as chance."
    if diverged:
        note += f" Up to the last good epoch: {'; '.join(f'{name}: {where}' for name, where in diverged.items())}."
    return Result(arrays, measured, said, n=n, note=note, scale=plan.scale)


def draw(result: Result):
    if not result.arrays:
        return {}
    figure = new_figure(11.5, 7.4)
    upper, lower = figure.subplots(2, 3)
    for axes, letter, name in zip(upper, "abc", RUNS, strict=True):
        filters = result.arrays[f"{name}.filters"][
            -1
        ]  # on one scale, so that the largest stands out and flat ones are grey
        tiles = (
            (0.5 + 0.5 * filters / max(float(np.abs(filters).max()), 1e-12))
            .transpose(0, 2, 3, 1)
            .astype(np.float32)
        )
        show(axes, mosaic(enlarge(tiles, 34), 12, gap=3), f"({letter}) layer 1, {name}")
    for axes, letter, name in zip(lower[:2], "de", ("AlexNet", "ZFNet"), strict=True):
        pixels = result.arrays[f"{name}.projections"]
        tiles = (
            mosaic(enlarge(projection_image(pixels), 96), 4, gap=4)
            if len(pixels)
            else np.ones((96, 96, 3), np.float32)
        )
        show(axes, tiles, f"({letter}) layer-2 projections, {name}")
    ratio = result.measured["largest RMS of layer 1 over the median, by epoch"]
    for (name, values), colour, width in zip(
        ratio.items(), LINES, (4, 1.5, 1.5), strict=False
    ):  # two may be the same
        lower[2].plot(
            range(1, len(values) + 1), values, marker="o", ms=3, lw=width, color=colour, label=name
        )
    lower[2].xaxis.get_major_locator().set_params(integer=True)
    lower[2].set(xlabel="epoch", title="Layer 1: largest RMS over the median")
    lower[2].legend(frameon=False, fontsize=9)
    return {"fig6.jpg": figure}
