"""The races of bench_speed: each returns seconds, memory, ratios to ours, and how far the results differ.

The plain computation passes whole images in batches, channels last, at its best batch size; Captum and zennit likewise.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import statistics
import unittest.mock
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import zfnet
import zfnet.fast
from reproduce.bench.timing import Timing, best, clock, race, spread
from zfnet.forward import network_steps, run
from zfnet.occlusion import occlude
from zfnet.projection import Projection, project, project_signal
from zfnet.receptive_field import cut

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
OURS, ALONE, PLAIN, CAPTUM, ZENNIT = "ours", "project", "plain", "Captum", "zennit"


def installed(name: str) -> bool:
    return importlib.util.find_spec(name.lower()) is not None


def report(timings: dict[str, Timing], errors: dict[str, float]) -> dict:
    """Seconds, memory, ratios and largest relative differences of the methods, by name."""
    ours = timings[OURS].seconds
    found: dict = {f"{name}, seconds": t.summary() for name, t in timings.items()}
    found |= {f"{name}, MiB": t.memory for name, t in timings.items()}
    others = {name: t.seconds for name, t in timings.items() if name != OURS}
    found |= {
        f"{name} over {OURS}": spread([b / a for a, b in zip(ours, other, strict=True)])
        for name, other in others.items()
    }
    return found | {f"{name}, largest relative difference": error for name, error in errors.items()}


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def occlusion(model: nn.Module, x: Tensor, config: dict, device: str) -> dict:
    """Ours, whole images in batches, and for one image Captum and zennit, which takes positions one by one."""
    size, stride, batches = config["size"], config["stride"], config["batches"]

    def plain(batch: int, x: Tensor = x):
        with zfnet.fast.disabled():
            return occlude(model, channels_last(x), size=size, stride=stride, batch=batch)

    batch = best(batches, lambda b: plain(b, x[:1]), device)
    methods: dict[str, Callable] = {
        OURS: lambda: occlude(model, x, size=size, stride=stride),
        PLAIN: lambda: plain(batch),
    }
    if len(x) == 1 and installed(CAPTUM):
        from captum.attr import Occlusion

        target, there = (
            int(model(x).argmax()),
            copy.deepcopy(model).to(memory_format=torch.channels_last),
        )  # pyright: ignore

        def by_captum(batch: int):
            shape, step = (3, size, size), (3, stride, stride)
            return Occlusion(there).attribute(
                x, shape, step, target=target, perturbations_per_eval=batch
            )

        at_once = best(batches, by_captum, device)
        methods[CAPTUM] = lambda: by_captum(at_once)
    if len(x) == 1 and installed(ZENNIT):
        from zennit.attribution import Occlusion as OneByOne
        from zennit.attribution import occlude_independent

        covered = functools.partial(occlude_independent, fill_fn=torch.zeros_like, invert=True)
        only = functional.one_hot(model(x).argmax(1), model(x).shape[1])
        one_by_one = OneByOne(
            model,
            None,
            lambda logits: logits * only,
            covered,
            window=(size, size),
            stride=(stride, stride),
        )
        methods[ZENNIT] = lambda: one_by_one(x)[1]
    timings = race(methods, config["repeats"], device)
    ours = timings[OURS].result
    errors = {PLAIN: relative(ours.logit, timings[PLAIN].result.logit)}
    if len(x) == 1:
        # Theirs are pictures: Captum's the mean fall over the positions that cover a pixel, zennit's the logits' sum.
        total, count = torch.zeros(2, *x.shape[2:], device=x.device)
        for (top, left, bottom, right), logit in zip(
            ours.boxes.view(-1, 4).tolist(), ours.logit.flatten(), strict=True
        ):
            total[top:bottom, left:right] += logit
            count[top:bottom, left:right] += 1
        if CAPTUM in timings:
            errors[CAPTUM] = relative(
                ours.baseline.logit - total / count, timings[CAPTUM].result[0, 0]
            )
        if (
            ZENNIT in timings
        ):  # its windows go on at the other side of the image where they reach the border
            inner = slice(size, -size)
            errors[ZENNIT] = relative(
                total[inner, inner], timings[ZENNIT].result[0, 0, inner, inner]
            )
    return report(timings, errors)


def projection(ctx, config: dict) -> dict:
    """Fig. 2's units: all at once by `project_top`; some of each layer by the others, weighted by the layers' numbers."""
    held, wanted = Held(ctx.images, ctx.top, ctx.device), {}
    methods: dict[tuple, Callable] = {(OURS, ""): lambda: every(ctx.model, held, ctx.top, wanted)}
    with torch.enable_grad():
        for layer in LAYERS:
            image, channel, rank, position, value = units(ctx.top[layer], config["units"])
            wanted[layer] = torch.zeros(ctx.top[layer].index.shape, dtype=torch.bool)
            wanted[layer][channel, rank] = True
            x = channels_last(ctx.images.batch(image).to(ctx.device))
            found = others(ctx.model, layer, x, channel, position, config, ctx.device)
            found[ALONE] = lambda a=(x, layer, channel, position), v=value: (
                project(ctx.model, *a, activation=v, crop=True).pixels
            )
            methods |= {(name, layer): method for name, method in found.items()}
        timings = race(methods, config["repeats"], ctx.device)
    total: dict[str, Timing] = {OURS: timings.pop((OURS, ""))}
    errors: dict[str, float] = {}
    for (name, layer), timing in timings.items():
        few, n = total[OURS].result[layer], len(timing.result)
        oracle = (
            timing.result
            if name == ALONE
            else cut(timing.result, few.corner[:n], few.pixels.shape[-1])
        )
        if name == CAPTUM:  # it projects one, not the activation
            oracle = oracle * few.activation[:n, None, None, None]
        errors[name] = max(errors.get(name, 0.0), relative(few.pixels[:n], oracle))
        weight = int((ctx.top[layer].index >= 0).sum()) / n
        so_far = total.get(name, Timing([0.0] * config["repeats"], None, 0.0))
        seconds = [a + b * weight for a, b in zip(so_far.seconds, timing.seconds, strict=True)]
        total[name] = Timing(seconds, None, max(so_far.memory, timing.memory))
    reading = clock(lambda: every(ctx.model, ctx.images, ctx.top, wanted), ctx.device)
    count = sum(int((ctx.top[layer].index >= 0).sum()) for layer in LAYERS)
    return report(total, errors) | {"projections": count, "seconds for all features": [reading]}


def others(
    model, layer: str, x: Tensor, channel: Tensor, position: Tensor, config: dict, device: str
) -> dict[str, Callable]:
    """The other methods, each returning its units' projections as whole images."""
    steps, rows = (
        network_steps(model, x, layer),
        torch.arange(len(x)),
    )  # beside `channel` and `position`, on the CPU

    def seed(maps: Tensor, chosen: Tensor) -> Tensor:
        """The chosen units' activations, all others zero."""
        signal, row, (r, c) = torch.zeros_like(maps), torch.arange(len(chosen)), position[chosen].T
        signal[row, channel[chosen], r, c] = maps[row, channel[chosen], r, c].detach()
        return signal

    @torch.no_grad()
    def plain(batch: int) -> Tensor:
        traces = ((run(steps, x[r]), r) for r in rows.split(batch))
        return torch.cat([project_signal(t, seed(t[layer], r)) for t, r in traces])

    batch = best(config["batches"], plain, device)
    methods: dict[str, Callable] = {PLAIN: lambda: plain(batch)}
    if installed(ZENNIT):
        from zennit.attribution import Gradient
        from zennit.composites import DeconvNet

        def by_zennit(batch: int) -> Tensor:
            with Gradient(
                model=nn.Sequential(*(step.module for step in steps)), composite=DeconvNet()
            ) as attributor:
                return torch.cat(
                    [
                        attributor(x[r].clone(), lambda maps, r=r: seed(maps, r))[1]
                        for r in rows.split(batch)
                    ]
                )

        at_once = best(config["batches"], by_zennit, device)
        methods[ZENNIT] = lambda: by_zennit(at_once)
    if installed(CAPTUM):
        from captum.attr import NeuronDeconvolution

        def by_captum() -> Tensor:
            found = []
            for i in range(config["one by one"]):  # Captum takes one selector for a batch
                selector = (int(channel[i]), *position[i].tolist())
                pixels = NeuronDeconvolution(model, steps[-1].module).attribute(
                    x[i : i + 1].clone().requires_grad_(), selector
                )
                found.append(pixels.detach())
            return torch.cat(found)

        methods[CAPTUM] = by_captum
    return methods


def units(top, count: int) -> tuple[Tensor, ...]:
    """Images, channels, ranks, positions and activations of `count` of a layer's strongest, evenly spaced."""
    channel, rank = (top.index >= 0).nonzero().unbind(1)
    chosen = torch.linspace(0, len(channel) - 1, count).long()
    channel, rank = channel[chosen], rank[chosen]
    return (
        top.index[channel, rank],
        channel,
        rank,
        top.position[channel, rank],
        top.value[channel, rank],
    )


class Held(torch.utils.data.Dataset):
    """A data set of which only what a search has found is there, read already: as the other methods' images are."""

    def __init__(self, images, top, device: str):
        found = torch.cat([top[layer].index.flatten() for layer in LAYERS]).unique().clamp_min(0)
        self.n, self.x = len(images), {0: images.batch([0])[0].to(device)}
        for part in found.split(64):
            self.x |= dict(
                zip(part.tolist(), channels_last(images.batch(part).to(device)), strict=True)
            )

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Tensor:
        return self.x[i]


def every(model: nn.Module, images, top, wanted: dict[str, Tensor]) -> dict[str, Projection]:
    """Project all that was found, and keep the `wanted` (C, k) of each layer, by channel and rank."""
    kept: dict[str, list[tuple[int, int, Projection, int]]] = {}
    for layer, rank, p in zfnet.project_top(model, images, top, LAYERS):
        for i in wanted[layer][p.channel.cpu(), rank.cpu()].nonzero()[:, 0].tolist():
            kept.setdefault(layer, []).append((int(p.channel[i]), int(rank[i]), p, i))
    found = {}
    for layer, parts in kept.items():
        parts.sort(key=lambda part: part[:2])
        fields = zip(*([t[i] for t in vars(p).values()] for _, _, p, i in parts), strict=True)
        found[layer] = Projection(*(torch.stack(field) for field in fields))
    return found


def channels_last(x: Tensor) -> Tensor:
    """In the layout that every method is fastest with."""
    return x.contiguous(memory_format=torch.channels_last)


class Part(torch.utils.data.Dataset):
    """The first n items of decoded images, again from the start where there are fewer."""

    def __init__(self, images, n: int):
        self.images, self.n = images, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i % len(self.images)][0]


def search(ctx, config: dict) -> dict:
    """The search over all layers against the bare pass of the same modules over the same images."""
    n = config["search"]
    images = ctx.images.batch(np.arange(n) % len(ctx.images))
    steps = network_steps(ctx.model, images[:1].to(ctx.device), LAYERS[-1])

    def forward() -> None:
        with torch.no_grad():
            for x in images.split(64):
                signal = x.to(ctx.device).contiguous(memory_format=torch.channels_last)
                for step in steps:
                    signal = step.module(signal)

    methods = {"forward pass": forward}
    methods |= {
        f"k = {k}": lambda k=k: zfnet.top_activations(ctx.model, images, LAYERS, k)
        for k in (9, 1000)
    }
    timings = race(methods, config["repeats"], ctx.device)
    bare = timings.pop("forward pass")
    found = {"forward pass, seconds": bare.summary(), "images": n}
    for name, timing in timings.items():
        found |= {f"{name}, seconds": timing.summary(), f"{name}, MiB": timing.memory}
        found[f"ours over the forward pass, {name}"] = spread(
            [b / a for a, b in zip(bare.seconds, timing.seconds, strict=True)]
        )
    return found


def plain(model: nn.Module, x: Tensor, size: int, stride: int) -> None:
    """Occlude by whole passes, whatever the count of operations says."""
    with zfnet.fast.disabled():
        occlude(model, channels_last(x), size=size, stride=stride)


def incremental(model: nn.Module, x: Tensor, size: int, stride: int) -> None:
    """Occlude by what changes, whatever the count of operations says."""
    with unittest.mock.patch("zfnet.fast.incremental.pays", return_value=True):
        occlude(model, x, size=size, stride=stride)


def choice(model: nn.Module, x: Tensor, config: dict, device: str) -> dict:
    """The time of the way that counting operations chooses over the faster way's: 1 where the choice is right."""
    tiny = zfnet.zfnet(10, norm="none", channels=(4, 4, 4, 4, 4), fc_units=8).to(device)
    found = {}
    for name, network in (("this network", model), ("a network of 4 maps a layer", tiny)):
        for size in [s for s in (*config["sizes"], 192) if s >= config["choice stride"]]:
            ways = {
                "chosen": functools.partial(
                    occlude, network, x, size=size, stride=config["choice stride"]
                ),
                "incremental": functools.partial(
                    incremental, network, x, size, config["choice stride"]
                ),
                "plain": functools.partial(plain, network, x, size, config["choice stride"]),
            }
            timings = race(ways, 3, device)
            auto, *forced = (statistics.median(t.seconds) for t in timings.values())
            found[f"{name}, occluder of {size}"] = auto / min(forced)
    return found


def grow(ctx, x: Tensor, config: dict) -> dict[str, dict[int, list[float]]]:
    """Our seconds as the task grows: [median, least, most] at each size of it."""
    size, stride = config["size"], config["stride"]
    image, channel, _, position, _ = units(ctx.top["conv5"], max(config["features"]))
    photographs = channels_last(ctx.images.batch(image).to(ctx.device))
    tasks = {
        "stride": {s: lambda s=s: occlude(ctx.model, x, size=size, stride=s) for s in config["strides"]},
        "occluder": {s: lambda s=s: occlude(ctx.model, x, size=s, stride=stride) for s in config["sizes"]},
        "features": {
            n: lambda n=n: project(ctx.model, photographs[:n], "conv5", channel[:n], position[:n]) for n in config["features"]
        },
        "images": {n: lambda n=n: zfnet.top_activations(ctx.model, Part(ctx.images, n), LAYERS) for n in config["images"]},
    }  # fmt: skip
    long = {
        ("stride", 2),
        ("images", 1000),
        ("images", 10000),
    }  # once is enough of these: they take a minute or more
    found: dict[str, dict[int, list[float]]] = {}
    for name, runs in tasks.items():
        found[name] = {}
        for at, task in runs.items():
            repeats = 1 if (name, at) in long else config["repeats"]
            if ctx.device != "cpu":
                task()  # a GPU's first pass chooses its kernels
            found[name][at] = spread([clock(task, ctx.device) for _ in range(repeats)])
    return found
