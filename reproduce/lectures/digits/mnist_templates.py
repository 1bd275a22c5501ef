"""MNIST: the weights of one dense layer with a softmax are templates of the digits.

A logit is the product of the picture with a class's weights: ink on a positive weight is evidence
for the class, ink on a negative one evidence against it. Lectures draw the ten weight vectors as
pictures and recognize the digits. Measured: each is correlated with the mean picture of each class,
minus the mean of all. A template is recognized if its own class correlates most. A template has no
shifts and no second way of writing, so the network of two convolutional layers should have fewer
errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reproduce.core.claims import WORDS, above
from reproduce.core.context import Context
from reproduce.core.digits import gray
from reproduce.core.figure import Figure, Result
from reproduce.core.page import SMALL, new_page, set_finding
from zfnet.analysis.intervals import mean_interval
from zfnet.data.dataset import Images

FIGURE = Figure(
    id="mnist_templates",
    title="The weights of a single dense layer as templates",
    claim="Each class's weights look like its digit. Ten templates have more errors than a network "
    "of two convolutional layers.",
    inputs=("digits",),
    seed=0,
    time_budget=150,
    config={"decay": 0.01, "steps": 100},
    manual=True,
    corpus="mnist",
    trains=True,
)

ACCURACY = "accuracy, %"
GAIN = "accuracy of the network of two convolutional layers, less that, %"
MATCHED = "classes whose weights are nearest to their own mean"


def compute(ctx: Context) -> Result:
    digits = ctx.dataset("digits")
    (x, labels), (test_x, test_labels) = map(pixels_and_labels, (digits.train, digits.test))
    layer = fit(x, labels)
    weight = layer.weight.detach()  # (10, 784)
    means = torch.stack([x[labels == k].mean(0) for k in range(10)])
    both = torch.corrcoef(torch.cat([weight, means - means.mean(0)]))
    correlation = both[:10, 10:].numpy()  # (weights, means)
    correct = (layer(test_x).argmax(1) == test_labels).double().numpy()
    batches = torch.arange(len(test_x)).split(500)
    network = torch.cat([digits.model(digits.test.batch(part)).argmax(1) for part in batches])
    gain = (network == test_labels).double().numpy() - correct
    own_class, others = np.diag(correlation), np.where(np.eye(10, dtype=bool), -1, correlation)
    measured: dict = {
        "digits trained on": len(x),
        "digits tested": len(test_x),
        ACCURACY: mean_interval(100 * correct),
        GAIN: mean_interval(100 * gain),
        "correlation of the weights with the mean of their own class": own_class.tolist(),
        "with the nearest other class": others.max(1).tolist(),
        MATCHED: int((correlation.argmax(1) == np.arange(10)).sum()),
    }
    claims, outcome = judge(measured)
    arrays = {
        "means": means.view(10, 28, 28).numpy(),
        "weights": weight.view(10, 28, 28).numpy(),
        "own": own_class,
    }
    note = (
        f"Softmax regression on {len(x)} digits of 28 x 28 gray pixels in [0, 1], fitted to its "
        f"optimum with a penalty of {FIGURE.config['decay'] / 2} times the squared weights. "
        "Without it, the weights are noise where there is little ink. 95 % intervals over the "
        "test digits. r is the correlation with the class's mean digit minus the overall mean."
    )
    measured |= {"claims": claims}
    return Result(arrays, measured, outcome, n=len(test_x), note=note, scale=digits.scale)


def pixels_and_labels(images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Gray pixels (N, 784) and labels (N,)."""
    return gray(images.batch(range(len(images)))).flatten(1), torch.from_numpy(images.labels)


def fit(x: torch.Tensor, labels: torch.Tensor) -> nn.Linear:
    """Fit a softmax regression with weight decay, from zero weights, with L-BFGS.

    The loss is convex, so the result does not depend on the initialization.
    """
    layer = nn.Linear(x.shape[1], 10)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=FIGURE.config["steps"], line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (
            F.cross_entropy(layer(x), labels)
            + FIGURE.config["decay"] / 2 * layer.weight.square().sum()
        )
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    return layer


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Every template matches its own class, and the network has fewer errors."""
    matched = m[MATCHED]
    gain = above(m[GAIN])
    claims = {
        "weights that look most like their own digit": f"{matched} of 10",
        "the network with two convolutional layers makes fewer errors": WORDS[gain],
    }
    return (
        claims,
        "reproduced" if matched == 10 and gain else "partial" if matched > 5 or gain else "differs",
    )


def draw(result: Result) -> dict[str, Any]:
    a, m = result.arrays, result.measured
    limit = float(np.abs(a["weights"]).max())
    figure = new_page(2.9)
    grid = figure.subplots(2, 1)
    rows = (
        ("mean digit", 1 - a["means"], "gray", (0, 1)),
        ("weights", a["weights"], "RdBu_r", (-limit, limit)),
    )
    for axes, (name, images, colors, limits) in zip(grid, rows, strict=True):
        strip = np.concatenate(
            np.pad(images, ((0, 0), (0, 0), (1, 1)), constant_values=images[0, 0, 0]), 1
        )
        drawn = axes.imshow(strip, cmap=colors, vmin=limits[0], vmax=limits[1])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_ylabel(name)
    width = strip.shape[1] // 10
    places = width * np.arange(10) + width / 2 - 0.5
    grid[0].set_xticks(places, [str(k) for k in range(10)])
    grid[0].set_xlabel("digit")
    grid[1].set_xticks(places, [f"r = {r:.2f}" for r in a["own"]], fontsize=SMALL + 1)
    for axes in grid:
        axes.tick_params(length=0)
    bar = figure.colorbar(drawn, ax=list(grid), fraction=0.02, pad=0.01)
    bar.set_ticks([-limit, 0, limit], labels=["against", "0", "for"])
    bar.outline.set_visible(False)
    accuracy, gain = m[ACCURACY][0], m[GAIN][0]
    set_finding(
        figure,
        f"The weights of {m[MATCHED]} of 10 classes look most like their own digit; they classify "
        f"{accuracy:.1f} % of {result.n:,} digits correctly, two convolutional layers "
        f"{accuracy + gain:.1f} %",
    )
    return {"mnist_templates.png": figure}
