"""Occlusion of VGG-19 with a stride of 2 pixels: 9,409 positions in minutes.

A map this fine is what a lecture shows, and it takes hours by whole passes on a CPU. Ours computes
all positions. The other methods compute few of them, and their time is multiplied by the number of
positions. Without `--model torchvision:vgg19 --weights FILE` the weights are random: they do not
change the time, and no map is drawn.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor, nn

from reproduce.bench.comparison import CAPTUM, OURS, PLAIN, installed, relative_difference
from reproduce.bench.networks_race import BOUND, counted_bound
from reproduce.bench.occlusion_race import by_captum, plain
from reproduce.bench.timing import best, clock
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import new_page, set_finding
from reproduce.site.text import number
from zfnet.occlusion import Occlusion, occlude
from zfnet.plot import HEAT, LINES, align_occlusion_map, photograph, show

FIGURE = Figure(
    id="bench_vgg19",
    title="Occlusion of VGG-19 with a stride of 2 pixels",
    claim="Computing only what the occluder changes makes a map of 97 x 97 positions a matter of "
    "minutes on two cores.",
    inputs=("model", "images", "device"),
    seed=12,
    time_budget=1200,
    manual=True,
    config={
        "batches": {"cpu": [4, 8, 64], "cuda": [8, 64, 256]},
        "size": 32, "stride": 2, "stride of others": 16, "tuning stride": 32, "minutes": 15,
    },
    network="any",
)  # fmt: skip


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    model, is_trained = _network(ctx)
    x = ctx.images.batch([0]).to(ctx.device)
    results: list[Occlusion] = []
    size, stride = config["size"], config["stride"]
    seconds = {
        OURS: clock(
            lambda: results.append(
                occlude(model, x, size=size, stride=stride, progress=ctx.progress)
            ),
            ctx.device,
        )
    }
    ours = results[0]
    others, difference = _others(model, x, ours, config, ctx)
    seconds |= others
    measured: dict[str, Any] = {f"{name}, seconds": value for name, value in seconds.items()}
    measured |= {f"{name} over {OURS}": value / seconds[OURS] for name, value in others.items()}
    measured |= {
        BOUND: counted_bound(model, x, size, stride),
        "plain, largest relative difference": difference,
        "weights": "trained" if is_trained else "random",
    }
    arrays = {"image": x[0].cpu().numpy()}
    if is_trained:
        arrays["logit"] = ours.logit.cpu().numpy()
    note = (
        f"{ours.logit.numel():,} positions, one run, {torch.get_num_threads()} threads, float32. "
        f"The seconds of the other methods are from positions {config['stride of others']} pixels "
        "apart, times the number of positions."
    )
    verdict = "reproduced" if seconds[OURS] <= 60 * config["minutes"] else "differs"
    return Result(arrays, measured, verdict, n=1, note=note)


def _network(ctx: Context) -> tuple[nn.Module, bool]:
    """VGG-19, and whether it is trained."""
    from torchvision.models import vgg19  # slow, and `reproduce list` imports this file

    if ctx.from_torchvision and ctx.network_name == "vgg19":
        return ctx.model, ctx.weights != "random"
    torch.manual_seed(FIGURE.seed)
    return vgg19(weights=None).to(ctx.device).eval(), False


def _others(
    model: nn.Module, x: Tensor, ours: Occlusion, config: dict, ctx: Context
) -> tuple[dict[str, float], float]:
    """The other methods' seconds for all positions, and the largest difference from plain."""
    size, stride, few = config["size"], config["stride of others"], config["tuning stride"]
    options = config | {"batches": config["batches"][ctx.device_type], "stride": stride}
    batch = best(options["batches"], lambda n: plain(model, x, size, few, n), ctx.device)
    results: list[Occlusion] = []
    methods = {PLAIN: lambda: results.append(plain(model, x, size, stride, batch))}
    if installed(CAPTUM):
        methods[CAPTUM] = by_captum(model, x, options, ctx.device)
    seconds = {name: clock(method, ctx.device) for name, method in methods.items()}
    every = stride // config["stride"]
    difference = relative_difference(ours.logit[::every, ::every], results[0].logit)
    positions = math.prod(ours.logit.shape) / math.prod(results[0].logit.shape)
    return {name: value * positions for name, value in seconds.items()}, difference


def draw(result: Result) -> dict[str, Picture]:
    is_trained = "logit" in result.arrays
    figure = new_page(3.2)
    axes, *others = figure.subplots(1, 3 if is_trained else 1, squeeze=False)[0]
    names = [name for name in (OURS, CAPTUM, PLAIN) if f"{name}, seconds" in result.measured]
    for i, name in enumerate(names):
        minutes = result.measured[f"{name}, seconds"] / 60
        axes.bar(i, minutes, 0.7, color=LINES[i])
        axes.annotate(f"{number(minutes)} min", (i, minutes), ha="center", va="bottom")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("minutes")
    if is_trained:
        size, stride = FIGURE.config["size"], FIGURE.config["stride"]
        image = photograph(result.arrays["image"][None])[0]
        show(others[0], image, "photograph")
        heat = others[1].imshow(result.arrays["logit"], cmap=HEAT)
        align_occlusion_map(others[1], size, stride, image.shape[0])
        others[1].set_title("logit by center of the occluder")
        others[1].set_axis_off()
        figure.colorbar(heat, ax=others[1], fraction=0.046)
    minutes = number(result.measured[f"{OURS}, seconds"] / 60)
    set_finding(figure, f"All positions of the occluder take {minutes} minutes")
    return {"bench_vgg19.png": figure}
