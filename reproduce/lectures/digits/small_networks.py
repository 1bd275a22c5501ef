"""Train many networks with one hidden layer in parallel, on points of a disc and a ring."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F


def draw_points(
    networks: int, count: int, generator: torch.Generator, disc: float = 0.5, ring: float = 0.65
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw points, half in the disc and half in the ring, uniformly over their areas.

    Args:
        networks: Number S of networks.
        count: Number N of points per network.
        generator: Random numbers.
        disc: Radius of the disc.
        ring: Inner radius of the ring; the outer one is 1.

    Returns:
        Points (S, N, 2), and whether each is in the disc (S, N).
    """
    inside = (torch.arange(count) % 2 == 0).float().expand(networks, count)
    share, angle = (torch.rand(networks, count, generator=generator) for _ in range(2))
    radius = torch.where(inside > 0, disc * share.sqrt(), (ring**2 + share * (1 - ring**2)).sqrt())
    angle = 2 * math.pi * angle
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1), inside


def train(
    points, labels, activation, generator: torch.Generator, progress, config: Mapping[str, Any]
) -> list[list[torch.Tensor]]:
    """Train S networks in parallel, and return their weights at each of the epochs shown."""
    units, epochs = config["units"], config["epochs"]
    weights = [  # PyTorch's default: uniform within 1 / sqrt(inputs)
        torch.empty(len(points), *shape)
        .uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        .requires_grad_()
        for shape, inputs in (((units, 2), 2), ((units,), 2), ((units,), units), ((), units))
    ]
    optimizer = torch.optim.Adam(weights, lr=config["rate"])
    snapshots = []
    with torch.enable_grad():
        for epoch in progress(range(epochs[-1] + 1), total=epochs[-1] + 1, desc="training"):
            if epoch in epochs:
                snapshots.append([w.detach().clone() for w in weights])
            logits = network(points, activation, *weights)
            optimizer.zero_grad()
            losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
            losses.sum().backward()  # one loss per network
            optimizer.step()
    return snapshots


def network(points, activation, w, b, out, bias) -> torch.Tensor:
    """The logits of S networks.

    Args:
        points: (S or 1, N, 2).
        activation: Of the hidden layer.
        w: (S, U, 2).
        b: (S, U).
        out: (S, U).
        bias: (S,).

    Returns:
        (S, N).
    """
    hidden = activation(points @ w.transpose(1, 2) + b[:, None])  # (S, N, U)
    return (hidden @ out[:, :, None])[..., 0] + bias[:, None]


def distances(w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The distance of each line from the disc's center, (S, U)."""
    return b.abs() / w.norm(dim=-1).clamp_min(1e-12)
