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
from reproduce.core.digits import grey
from reproduce.core.figure import Figure, Result
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import new_figure

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


def compute(ctx: Context) -> Result:
    (x, labels), (test_x, test_labels) = (
        (grey(part.batch(range(len(part)))).flatten(1), torch.from_numpy(part.labels))
        for part in (ctx.dataset("digits").train, ctx.dataset("digits").test)
    )
    layer = fit(x, labels)
    weight = layer.weight.detach()  # (10, 784)
    means = torch.stack([x[labels == k].mean(0) for k in range(10)])
    correlation = torch.corrcoef(torch.cat([weight, means - means.mean(0)]))[
        :10, 10:
    ].numpy()  # (weights, means)
    correct = (layer(test_x).argmax(1) == test_labels).double().numpy()
    test = ctx.dataset("digits").test
    network = torch.cat(
        [
            ctx.dataset("digits").model(test.batch(part)).argmax(1)
            for part in torch.arange(len(test)).split(500)
        ]
    )
    gain = (network == test_labels).double().numpy() - correct
    own_class = np.diag(correlation)
    measured: dict = {
        "digits trained on": len(x),
        "digits tested": len(test_x),
        "accuracy, %": mean_interval(100 * correct),
        "accuracy of the network of two convolutional layers, less that, %": mean_interval(
            100 * gain
        ),
        "correlation of the weights with the mean of their own class": own_class.tolist(),
        "with the nearest other class": np.where(np.eye(10, dtype=bool), -1, correlation)
        .max(1)
        .tolist(),
        "classes whose weights are nearest to their own mean": int(
            (correlation.argmax(1) == np.arange(10)).sum()
        ),
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
        "test digits."
    )
    return Result(
        arrays,
        measured | {"claims": claims},
        outcome,
        n=len(test_x),
        note=note,
        scale=ctx.dataset("digits").scale,
    )


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
    matched = m["classes whose weights are nearest to their own mean"]
    gain = above(m["accuracy of the network of two convolutional layers, less that, %"])
    claims = {
        "weights that look like their own digit most": f"{matched} of 10",
        "the network of two convolutional layers errs less": WORDS[gain],
    }
    return (
        claims,
        "reproduced" if matched == 10 and gain else "partial" if matched > 5 or gain else "differs",
    )


def draw(result: Result) -> dict[str, Any]:
    a, m = result.arrays, result.measured
    figure = new_figure(11, 2.75)
    grid = figure.subplots(2, 10)
    limit = float(np.abs(a["weights"]).max())
    for k, (mean, weight) in enumerate(grid.T):
        mean.imshow(a["means"][k], cmap="gray", vmin=0, vmax=1)
        shown = weight.imshow(a["weights"][k], cmap="RdBu_r", vmin=-limit, vmax=limit)
        mean.set_title(str(k), fontsize=11)
        weight.set_xlabel(f"r = {a['own'][k]:.2f}")
        for axes in (mean, weight):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    grid[0, 0].set_ylabel("mean digit")
    grid[1, 0].set_ylabel("weights")
    bar = figure.colorbar(
        shown, ax=grid[1].tolist(), fraction=0.012, pad=0.01, label="against / for"
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)
    accuracy, gain_mean = (m[name][0] for name in list(m)[2:4])
    figure.suptitle(
        f"One dense layer: {accuracy:.1f} % of {result.n:,} test digits correct; two "
        f"convolutional layers: {accuracy + gain_mean:.1f} %. r: correlation with the mean digit "
        "minus the overall mean"
    )
    return {"mnist_templates.png": figure}
