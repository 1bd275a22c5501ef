"""The lines of a small network's first layer, while it learns to tell a disc from the ring around it.

A hidden unit of a network with two inputs is zero on one side of a line, w x + b = 0, and on the other grows with the distance
from it. The lectures draw the lines during training: they begin anywhere and move to where the classes meet, until together
they enclose the disc. As numbers, over 20 networks that begin differently on points drawn anew: the accuracy, and the distance
of a line from the circle between the classes, before and after. The network that is drawn is the first.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from reproduce.figure import Figure, Result
from zfnet.methods.intervals import mean_interval
from zfnet.plot import LINES, new_figure

FIGURE = Figure(
    id="mlp_lines",
    title="The lines of a first layer during training",
    claim="The lines of the hidden units move to where the classes meet.",
    inputs=(),
    seed=0,
    budget=30,
    config={
        "networks": 20,
        "points": 400,
        "units": 6,
        "rate": 0.02,
        "epochs": [0, 10, 30, 100, 300, 1000],
        "disc": 0.5,
        "ring": 0.65,
    },
    alone=True,
    corpus="mnist",
)
GRID = 121  # of the plane, for the regions that are drawn


def compute(ctx) -> Result:
    config = FIGURE.config
    generator = torch.Generator().manual_seed(FIGURE.seed)
    points, labels = draw_points(config["networks"], config["points"], generator)
    units = config["units"]
    weights = [  # PyTorch's own start: uniform, within one over the root of the inputs
        torch.empty(config["networks"], *shape).uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
        for shape, inputs in (((units, 2), 2), ((units,), 2), ((units,), units), ((), units))
    ]
    optimizer = torch.optim.Adam([w.requires_grad_() for w in weights], lr=config["rate"])
    kept: dict[int, list[torch.Tensor]] = {}
    with torch.enable_grad():
        for epoch in ctx.progress(range(config["epochs"][-1] + 1), total=config["epochs"][-1] + 1, desc="training"):
            if epoch in config["epochs"]:
                kept[epoch] = [w.detach().clone() for w in weights]
            losses = F.binary_cross_entropy_with_logits(network(points, *weights), labels, reduction="none").mean(1)
            optimizer.zero_grad()
            losses.sum().backward()  # each network's loss is its own
            optimizer.step()
    edge = (config["disc"] + config["ring"]) / 2
    accuracy = {e: 100 * ((network(points, *w) > 0) == (labels > 0.5)).double().mean(1).numpy() for e, w in kept.items()}
    away = {e: (distances(w[0], w[1]) - edge).abs().mean(1).double().numpy() for e, w in kept.items()}
    first, last = config["epochs"][0], config["epochs"][-1]
    measured: dict = {
        "networks": config["networks"],
        "accuracy, %": {f"epoch {e}": mean_interval(v) for e, v in accuracy.items()},
        "distance of a line from the circle between the classes": {f"epoch {e}": mean_interval(v) for e, v in away.items()},
        "nearer at the end by": mean_interval(away[first] - away[last]),
    }
    claims, verdict = judge(measured)
    axis = torch.linspace(-1.1, 1.1, GRID)
    plane = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, -1, 2)
    arrays = {"points": points[0].numpy(), "labels": labels[0].numpy(), "accuracy": np.array([v[0] for v in accuracy.values()])}
    for e, w in kept.items():
        one = [part[:1] for part in w]
        arrays |= {f"{e}.w": one[0][0].numpy(), f"{e}.b": one[1][0].numpy()}
        arrays[f"{e}.region"] = (network(plane, *one)[0] > 0).view(GRID, GRID).numpy()
    note = (
        f"{config['networks']} networks of {units} rectified hidden units, Adam at {config['rate']} on all {config['points']} "
        f"points. The disc ends at {config['disc']}, the ring begins at {config['ring']}; 95 % intervals over networks."
    )
    return Result(arrays, measured | {"claims": claims}, verdict, n=config["networks"], note=note)


def draw_points(networks: int, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (S, N, 2), half in the disc, half in the ring, even over their areas, and which are in the disc (S, N)."""
    inside = (torch.arange(count) % 2 == 0).float().expand(networks, count)
    share, angle = (torch.rand(networks, count, generator=generator) for _ in range(2))
    disc, ring = FIGURE.config["disc"], FIGURE.config["ring"]
    radius = torch.where(inside > 0, disc * share.sqrt(), (ring**2 + share * (1 - ring**2)).sqrt())
    angle = 2 * math.pi * angle
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1), inside


def network(points, w, b, out, bias) -> torch.Tensor:
    """The logits (S, N) of S networks: points (S or 1, N, 2), w (S, U, 2), b and out (S, U), bias (S,)."""
    hidden = F.relu(points @ w.transpose(1, 2) + b[:, None])  # (S, N, U)
    return (hidden @ out[:, :, None])[..., 0] + bias[:, None]


def distances(w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """How far each line lies from the middle of the disc: (S, U)."""
    return b.abs() / w.norm(dim=-1).clamp_min(1e-12)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Reproduced if the lines end nearer to the circle than they began, beyond the interval, and the networks have learned."""
    learned = list(m["accuracy, %"].values())[-1][1] > 95
    nearer = m["nearer at the end by"][1] > 0
    held = {"the lines end nearer to where the classes meet": nearer, "the networks end with more than 95 % right": learned}
    verdict = "reproduced" if all(held.values()) else "partial" if any(held.values()) else "differs"
    return {claim: "holds" if yes else "does not hold" for claim, yes in held.items()}, verdict


def draw(result: Result):
    a, epochs = result.arrays, FIGURE.config["epochs"]
    figure = new_figure(9, 6.3)
    for axes, epoch, accuracy in zip(figure.subplots(2, 3).flat, epochs, a["accuracy"], strict=True):
        axes.contourf(
            a[f"{epoch}.region"], levels=(-0.5, 0.5, 1.5), colors=("#f7e3d4", "#d6e6f2"), extent=(-1.1, 1.1, -1.1, 1.1)
        )
        for inside, colour in ((1, LINES[0]), (0, LINES[1])):
            x, y = a["points"][a["labels"] == inside].T
            axes.scatter(x, y, s=4, color=colour, linewidths=0)
        for (u, v), b in zip(a[f"{epoch}.w"], a[f"{epoch}.b"], strict=True):
            length = float(np.hypot(u, v))
            foot, along = -b * np.array([u, v]) / length**2, np.array([-v, u]) / length
            axes.plot(*np.stack([foot - 4 * along, foot + 4 * along]).T, color="0.15", linewidth=1.1)
            axes.annotate("", foot + 0.16 * np.array([u, v]) / length, foot, arrowprops={"arrowstyle": "->", "color": "0.15"})
        axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"epoch {epoch}: {accuracy:.0f} % right")
        axes.spines[:].set_visible(False)
    figure.suptitle(
        "Each line is where a hidden unit is zero; its arrow points to where the unit is active. Shading: the decision"
    )
    return {"mlp_lines.png": figure}
