"""Time projections: ours for all features of Figure 2, other methods for some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import zfnet
from reproduce.bench.comparison import (
    CAPTUM,
    LAYERS,
    OURS,
    PLAIN,
    PROJECT,
    ZENNIT,
    channels_last,
    installed,
    relative_difference,
    report,
)
from reproduce.bench.timing import Timing, best, clock, race
from reproduce.core.context import Context
from zfnet.acceleration import accelerate
from zfnet.data.dataset import Images
from zfnet.deconv import backproject
from zfnet.forward import run
from zfnet.graph import network_steps
from zfnet.projection import Projection, project
from zfnet.ranking import TopActivations
from zfnet.receptive_field import cut


class Units(NamedTuple):
    """Some of the strongest activations of a layer: (n,) each, `position` (n, 2)."""

    image: Tensor
    channel: Tensor
    rank: Tensor
    position: Tensor
    value: Tensor


def projection(ctx: Context, config: dict) -> dict:
    """Time the projections of Figure 2.

    Ours projects all units with `project_top`. The other methods project some units of each layer;
    their seconds are scaled to the number of units in the layer.
    """
    model, top, device = ctx.model, ctx.top, ctx.device
    images, selected = DecodedImages(ctx.images, top, device), {}
    methods: dict[tuple, Callable] = {(OURS, ""): lambda: project_all(model, images, top, selected)}
    with torch.enable_grad():
        for layer in LAYERS:
            units = choose_units(top[layer], config["units"])
            selected[layer] = torch.zeros(top[layer].index.shape, dtype=torch.bool)
            selected[layer][units.channel, units.rank] = True
            x = channels_last(ctx.images.batch(units.image).to(device))
            layer_methods = _other_methods(model, layer, x, units, config, device)
            layer_methods[PROJECT] = lambda x=x, layer=layer, u=units: (
                project(
                    model, x, layer, u.channel, u.position, activation=u.value, crop=True
                ).pixels
            )
            methods |= {(name, layer): method for name, method in layer_methods.items()}
        timings = race(methods, config["repeats"], device)
    our_timing = timings.pop((OURS, ""))
    count = {layer: int((top[layer].index >= 0).sum()) for layer in LAYERS}
    total, errors = _sum_layers(timings, our_timing, count)
    reading = clock(lambda: project_all(model, ctx.images, top, selected), device)
    totals = {"projections": sum(count.values()), "seconds for all features": [reading]}
    return report(total, errors) | totals


def _sum_layers(
    timings: dict[tuple, Timing], ours: Timing, count: dict[str, int]
) -> tuple[dict[str, Timing], dict[str, float]]:
    """Sum the times of each method over layers, and compare its results with ours."""
    total, errors = {OURS: ours}, {}
    for (name, layer), timing in timings.items():
        projected, n = ours.result[layer], len(timing.result)
        pixels = timing.result
        if name != PROJECT:
            pixels = cut(pixels, projected.corner[:n], projected.pixels.shape[-1])
        if name == CAPTUM:  # it projects 1, not the activation
            pixels = pixels * projected.activation[:n, None, None, None]
        error = relative_difference(projected.pixels[:n], pixels)
        errors[name] = max(errors.get(name, 0.0), error)
        weight = count[layer] / n
        accumulated = total.get(name, Timing([0.0] * len(timing.seconds), None, 0.0))
        seconds = [a + b * weight for a, b in zip(accumulated.seconds, timing.seconds, strict=True)]
        total[name] = Timing(seconds, None, max(accumulated.memory, timing.memory))
    return total, errors


def _other_methods(
    model: nn.Module, layer: str, x: Tensor, units: Units, config: dict, device: str
) -> dict[str, Callable]:
    """Return the other methods. Each returns the projections of its units as full images."""
    steps, rows = network_steps(model, x, layer), torch.arange(len(x))

    def seed(maps: Tensor, rows: Tensor) -> Tensor:
        """Keep the activations of the units, and set all others to zero."""
        signal, n = torch.zeros_like(maps), torch.arange(len(rows))
        index = (n, units.channel[rows], *units.position[rows].T)
        signal[index] = maps[index].detach()
        return signal

    @torch.no_grad()
    def by_plain(batch: int) -> Tensor:
        traces = ((run(steps, x[r]), r) for r in rows.split(batch))
        return torch.cat([accelerate(backproject)(t, seed(t[layer], r)) for t, r in traces])

    batch = best(config["batches"], by_plain, device)
    methods: dict[str, Callable] = {PLAIN: lambda: by_plain(batch)}
    if installed(ZENNIT):
        from zennit.attribution import Gradient
        from zennit.composites import DeconvNet

        def by_zennit(batch: int) -> Tensor:
            chain = nn.Sequential(*(step.module for step in steps))
            with Gradient(model=chain, composite=DeconvNet()) as attributor:
                parts = [
                    attributor(x[r].clone(), lambda maps, r=r: seed(maps, r))[1]  # pyright: ignore
                    for r in rows.split(batch)
                ]
            return torch.cat(parts)

        zennit_batch = best(config["batches"], by_zennit, device)
        methods[ZENNIT] = lambda: by_zennit(zennit_batch)
    if installed(CAPTUM):
        from captum.attr import NeuronDeconvolution

        def by_captum() -> Tensor:
            pixels = []
            for i in range(config["one by one"]):  # Captum takes one selector for a batch
                selector = (int(units.channel[i]), *units.position[i].tolist())
                method = NeuronDeconvolution(model, steps[-1].module)
                image = x[i : i + 1].clone().requires_grad_()
                pixels.append(method.attribute(image, selector).detach())
            return torch.cat(pixels)

        methods[CAPTUM] = by_captum
    return methods


def choose_units(top, count: int) -> Units:
    """Choose evenly spaced units among the strongest activations of a layer."""
    channel, rank = (top.index >= 0).nonzero().unbind(1)
    rows = torch.linspace(0, len(channel) - 1, count).long()
    index = (channel[rows], rank[rows])
    return Units(top.index[index], *index, top.position[index], top.value[index])


class DecodedImages(torch.utils.data.Dataset):
    """The images of the strongest activations, decoded before timing as for the other methods."""

    def __init__(self, images: Images, top: TopActivations, device: str):
        rows = torch.cat([top[layer].index.flatten() for layer in LAYERS]).unique().clamp_min(0)
        self.n, self.x = len(images), {0: images.batch([0])[0].to(device)}
        for part in rows.split(64):
            x = channels_last(images.batch(part).to(device))
            self.x |= dict(zip(part.tolist(), x, strict=True))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Tensor:
        return self.x[i]


def project_all(
    model: nn.Module, images, top: TopActivations, selected: dict[str, Tensor]
) -> dict[str, Projection]:
    """Project all strongest activations; return those selected by a mask (C, k) per layer."""
    parts_by_layer: dict[str, list[tuple[int, int, Projection, int]]] = {}
    for layer, rank, p in zfnet.project_top(model, images, top, LAYERS):
        for i in selected[layer][p.channel.cpu(), rank.cpu()].nonzero()[:, 0].tolist():
            parts_by_layer.setdefault(layer, []).append((int(p.channel[i]), int(rank[i]), p, i))
    projections = {}
    for layer, parts in parts_by_layer.items():
        parts.sort(key=lambda part: part[:2])
        values = zip(*([v[i] for v in vars(p).values()] for _, _, p, i in parts), strict=True)
        projections[layer] = Projection(*(torch.stack(value) for value in values))
    return projections
