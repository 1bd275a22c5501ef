"""The lines of a small network's first layer, while it learns to tell a disc from the ring around it.

A hidden unit of a network with two inputs has a line, w x + b = 0: a tanh unit changes its sign there, a rectified one begins
to grow. The lectures draw the lines during training: they begin anywhere and move to where the classes meet. As numbers, for
each kind of unit over 20 networks that begin differently on points drawn anew: the accuracy, and how far the lines are from
the circle between the classes, before and after. A network's distance is the median of its lines', for one that has left
the picture is as far as it likes. The networks that are drawn are the first, with the same points and the same start.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import LINES, new_figure

FIGURE = Figure(
    id="mlp_lines",
    title="The lines of a first layer during training",
    claim="The lines of the hidden units move to where the classes meet.",
    inputs=(),
    seed=0,
    time_budget=30,
    config={
        "networks": 20, "points": 400, "units": 6, "rate": 0.02, "epochs": [0, 30, 100, 300, 1000], "disc": 0.5, "ring": 0.65,
    },
    manual=True,
    corpus="mnist",
    trains=True,
)  # fmt: skip
UNITS = {"tanh": torch.tanh, "rectified": F.relu}
GRID = 241  # points of the plane along a side, for the regions that are drawn


def compute(ctx) -> Result:
    config, epochs = FIGURE.config, FIGURE.config["epochs"]
    edge = (config["disc"] + config["ring"]) / 2
    measured: dict = {"networks of each kind": config["networks"]}
    arrays: dict[str, np.ndarray] = {}
    for kind, activation in UNITS.items():
        generator = torch.Generator().manual_seed(FIGURE.seed)
        points, labels = draw_points(config["networks"], config["points"], generator)
        kept = train(points, labels, activation, generator, ctx.progress)
        right = [
            ((network(points, activation, *w) > 0) == (labels > 0.5)).double().mean(1).numpy()
            for w in kept
        ]
        away = [
            (distances(w[0], w[1]) - edge).abs().median(1).values.double().numpy() for w in kept
        ]
        measured[kind] = {
            "accuracy, %": {
                f"epoch {e}": mean_interval(100 * v) for e, v in zip(epochs, right, strict=True)
            },
            "distance of the lines from where the classes meet": {
                f"epoch {e}": mean_interval(v) for e, v in zip(epochs, away, strict=True)
            },
            "nearer at the end by": mean_interval(away[0] - away[-1]),
        }
        arrays |= {
            f"{kind}.accuracy": np.array([v[0] for v in right]),
            "points": points[0].numpy(),
            "labels": labels[0].numpy(),
        }
        axis = torch.linspace(-1.1, 1.1, GRID)
        plane = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, -1, 2)
        for epoch, w in zip(epochs, kept, strict=True):
            one = [part[:1] for part in w]
            arrays |= {
                f"{kind}.{epoch}.w": one[0][0].numpy(),
                f"{kind}.{epoch}.b": one[1][0].numpy(),
            }
            arrays[f"{kind}.{epoch}.region"] = (
                (network(plane, activation, *one)[0] > 0).view(GRID, GRID).numpy()
            )
    claims, said = judge(measured)
    note = (
        f"{config['networks']} networks of {config['units']} hidden units of each kind, Adam at {config['rate']} on all "
        f"{config['points']} points. The disc ends at {config['disc']}, the ring begins at {config['ring']}; 95 % intervals "
        "over networks. A rectified network's decision bends only on its lines: they cross it, and need not follow it."
    )
    return Result(arrays, measured | {"claims": claims}, said, n=2 * config["networks"], note=note)


def draw_points(
    networks: int, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (S, N, 2), half in the disc, half in the ring, even over their areas, and which are in the disc (S, N)."""
    inside = (torch.arange(count) % 2 == 0).float().expand(networks, count)
    share, angle = (torch.rand(networks, count, generator=generator) for _ in range(2))
    disc, ring = FIGURE.config["disc"], FIGURE.config["ring"]
    radius = torch.where(inside > 0, disc * share.sqrt(), (ring**2 + share * (1 - ring**2)).sqrt())
    angle = 2 * math.pi * angle
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1), inside


def train(
    points, labels, activation, generator: torch.Generator, progress
) -> list[list[torch.Tensor]]:
    """The weights of S networks at each of the epochs that are shown, trained side by side."""
    units, epochs = FIGURE.config["units"], FIGURE.config["epochs"]
    weights = [  # PyTorch's own start: uniform, within one over the root of the inputs
        torch.empty(len(points), *shape)
        .uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        .requires_grad_()
        for shape, inputs in (((units, 2), 2), ((units,), 2), ((units,), units), ((), units))
    ]
    optimizer = torch.optim.Adam(weights, lr=FIGURE.config["rate"])
    kept = []
    with torch.enable_grad():
        for epoch in progress(range(epochs[-1] + 1), total=epochs[-1] + 1, desc="training"):
            if epoch in epochs:
                kept.append([w.detach().clone() for w in weights])
            logits = network(points, activation, *weights)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(
                1
            ).sum().backward()  # each has its own loss
            optimizer.step()
    return kept


def network(points, activation, w, b, out, bias) -> torch.Tensor:
    """The logits (S, N) of S networks: points (S or 1, N, 2), w (S, U, 2), b and out (S, U), bias (S,)."""
    hidden = activation(points @ w.transpose(1, 2) + b[:, None])  # (S, N, U)
    return (hidden @ out[:, :, None])[..., 0] + bias[:, None]


def distances(w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How far each line lies from the middle of the disc: (S, U)."""
    return b.abs() / w.norm(dim=-1).clamp_min(1e-12)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Reproduced if the lines of both kinds of unit end nearer to the circle than they began, beyond the interval."""
    held = {
        f"{kind}: the lines end nearer to where the classes meet": above(
            m[kind]["nearer at the end by"]
        )
        for kind in UNITS
    }
    return verdict(held)


def draw(result: Result):
    a, epochs = result.arrays, FIGURE.config["epochs"]
    figure = new_figure(9.6, 4.55)
    for row, kind in zip(figure.subplots(2, len(epochs)), UNITS, strict=True):
        for axes, epoch, accuracy in zip(row, epochs, a[f"{kind}.accuracy"], strict=True):
            region = (a[f"{kind}.{epoch}.region"] > 0)[..., None]
            colours = np.where(region, (0.84, 0.9, 0.95), (0.97, 0.89, 0.83))
            axes.imshow(colours, extent=(-1.1, 1.1, -1.1, 1.1), origin="lower")
            for inside, colour in ((1, LINES[0]), (0, LINES[1])):
                x, y = a["points"][a["labels"] == inside].T
                axes.scatter(x, y, s=2.5, color=colour, linewidths=0)
            for (u, v), b in zip(a[f"{kind}.{epoch}.w"], a[f"{kind}.{epoch}.b"], strict=True):
                foot, along = (
                    -b * np.array([u, v]) / (u * u + v * v),
                    np.array([-v, u]) / np.hypot(u, v),
                )
                axes.plot(
                    *np.stack([foot - 4 * along, foot + 4 * along]).T, color="0.15", linewidth=1
                )
            axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[], yticks=[])
            axes.set_title(f"epoch {epoch}: {100 * accuracy:.0f} % right", fontsize=9)
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(f"{kind} units", fontsize=10)
    figure.suptitle("A line is where a hidden unit is zero; the shading is the network's decision")
    return {"mlp_lines.png": figure}
