"""The lines of a small network's first layer while it learns to separate a disc from a ring.

A hidden unit of a network with two inputs has a line, w x + b = 0, where a tanh unit changes its
sign and a rectified one becomes active. Lectures draw these lines during training: they start
anywhere and move to the boundary between the classes. Measured for each kind of unit, over 20
networks with different initializations and points: the accuracy, and the distance of the lines from
the circle between the classes, before and after training. A network's distance is the median over
its lines, since a line that leaves the picture can be arbitrarily far. The networks that are drawn
are the first of each kind, with the same points and initialization.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import caption, new_page, set_finding
from reproduce.lectures.digits.small_networks import distances, draw_points, network, train
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import LINES

FIGURE = Figure(
    id="mlp_lines",
    title="The lines of a first layer during training",
    claim="The lines of the hidden units move to the boundary between the classes.",
    inputs=(),
    seed=0,
    time_budget=30,
    config={
        "networks": 20,
        "points": 400,
        "units": 6,
        "rate": 0.02,
        "epochs": [0, 30, 100, 300, 1000],
        "disc": 0.5,
        "ring": 0.65,
    },
    manual=True,
    corpus="mnist",
    trains=True,
)
UNITS = {"tanh": torch.tanh, "rectified": F.relu}
DISTANCE = "distance of the lines from where the classes meet"
GRID = 241  # points per side of the regions that are drawn


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    measured: dict = {"networks of each kind": config["networks"]}
    arrays: dict[str, np.ndarray] = {}
    for kind, activation in UNITS.items():
        generator = torch.Generator().manual_seed(FIGURE.seed)
        points, labels = draw_points(
            config["networks"], config["points"], generator, config["disc"], config["ring"]
        )
        snapshots = train(points, labels, activation, generator, ctx.progress, config)
        measured[kind], accuracy = measure(points, labels, activation, snapshots)
        arrays |= {"points": points[0].numpy(), "labels": labels[0].numpy()}
        arrays[f"{kind}.accuracy"] = accuracy
        for epoch, weights in zip(config["epochs"], snapshots, strict=True):
            first = [part[:1] for part in weights]
            arrays[f"{kind}.{epoch}.w"] = first[0][0].numpy()
            arrays[f"{kind}.{epoch}.b"] = first[1][0].numpy()
            arrays[f"{kind}.{epoch}.region"] = region(activation, first)
    claims, outcome = judge(measured)
    note = (
        f"{config['networks']} networks of each kind with {config['units']} hidden units, Adam at "
        f"{config['rate']} on all {config['points']} points. The disc has radius "
        f"{config['disc']}, the ring starts at {config['ring']}; 95 % intervals over networks. "
        "The decision boundary of a rectified network bends only at its lines, which cross it "
        "and need not follow it."
    )
    measured |= {"claims": claims}
    return Result(arrays, measured, outcome, n=2 * config["networks"], note=note)


def measure(
    points: torch.Tensor, labels: torch.Tensor, activation, snapshots: list[list[torch.Tensor]]
) -> tuple[dict[str, Any], np.ndarray]:
    """The accuracy of networks, and the distance of their lines from the boundary, by epoch.

    Args:
        points: Points (S, N, 2).
        labels: Whether each is in the disc (S, N).
        activation: Of the hidden layer.
        snapshots: The weights at each epoch.

    Returns:
        The measured numbers, and the accuracy of the first network by epoch.
    """
    boundary = (FIGURE.config["disc"] + FIGURE.config["ring"]) / 2
    accuracy, distance = {}, {}
    for epoch, weights in zip(FIGURE.config["epochs"], snapshots, strict=True):
        correct = (network(points, activation, *weights) > 0) == (labels > 0.5)
        accuracy[f"epoch {epoch}"] = correct.double().mean(1).numpy()
        away = (distances(weights[0], weights[1]) - boundary).abs().median(1).values
        distance[f"epoch {epoch}"] = away.double().numpy()
    start, *_, end = distance.values()
    return {
        "accuracy, %": {name: mean_interval(100 * v) for name, v in accuracy.items()},
        DISTANCE: {name: mean_interval(v) for name, v in distance.items()},
        "nearer at the end by": mean_interval(start - end),
    }, np.array([v[0] for v in accuracy.values()])


def region(activation, weights: list[torch.Tensor]) -> np.ndarray:
    """Where a network decides for the disc, on a grid (GRID, GRID)."""
    axis = torch.linspace(-1.1, 1.1, GRID)
    plane = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, -1, 2)
    return (network(plane, activation, *weights)[0] > 0).view(GRID, GRID).numpy()


def judge(m: dict) -> tuple[dict[str, str], str]:
    """The lines of both kinds of unit end closer to the circle than they started."""
    results = {
        f"{kind}: the lines end nearer to where the classes meet": above(
            m[kind]["nearer at the end by"]
        )
        for kind in UNITS
    }
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    a, epochs = result.arrays, FIGURE.config["epochs"]
    figure = new_page(4.2)
    for row, kind in zip(figure.subplots(2, len(epochs)), UNITS, strict=True):
        for axes, epoch, accuracy in zip(row, epochs, a[f"{kind}.accuracy"], strict=True):
            draw_plane(axes, a, f"{kind}.{epoch}")
            caption(axes, f"epoch {epoch}: {100 * accuracy:.0f} % correct")
        row[0].set_ylabel(f"{kind} units")
    first, last = (
        [result.measured[kind][DISTANCE][f"epoch {epoch}"][0] for kind in UNITS]
        for epoch in (epochs[0], epochs[-1])
    )
    set_finding(
        figure,
        f"The median distance of the lines from the circle goes from {first[0]:.2f} to "
        f"{last[0]:.2f} for tanh units, from {first[1]:.2f} to {last[1]:.2f} for rectified units",
    )
    return {"mlp_lines.png": figure}


def draw_plane(axes: Axes, a: dict[str, np.ndarray], name: str) -> None:
    """Draw the points, the network's decision as shading, and the lines of its units."""
    inside = (a[f"{name}.region"] > 0)[..., None]
    colors = np.where(inside, (0.84, 0.9, 0.95), (0.97, 0.89, 0.83))
    axes.imshow(colors, extent=(-1.1, 1.1, -1.1, 1.1), origin="lower")
    for label, color in ((1, LINES[0]), (0, LINES[1])):
        axes.scatter(*a["points"][a["labels"] == label].T, s=2.5, color=color, linewidths=0)
    for (u, v), b in zip(a[f"{name}.w"], a[f"{name}.b"], strict=True):
        foot = -b * np.array([u, v]) / (u * u + v * v)
        along = np.array([-v, u]) / np.hypot(u, v)
        ends = np.stack([foot - 4 * along, foot + 4 * along])
        axes.plot(*ends.T, color="0.15", linewidth=1)
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
