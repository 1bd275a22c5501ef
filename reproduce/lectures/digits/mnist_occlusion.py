"""MNIST: parts of an 8 are erased, and the logit of 8 is measured.

A black square, the color of the background, moves over the digit. Lectures draw the probability and
the logit of 8, with the relative decrease of the logit over the picture. Two claims are tested on
correctly classified eights that the network was not trained on. The probability saturates: most
positions that cost a tenth of the logit change it by less than 0.01. And the network reads the rest
as we do: a 3 where the left of the loops is erased, a 9 where the lower left is, a 6 where the
upper right is. The center of the erased squares is compared with the center of the ink.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import zfnet
from reproduce.core.claims import above, below, every, verdict
from reproduce.core.context import Context
from reproduce.core.digits import Digits, gray
from reproduce.core.figure import Figure, Result
from reproduce.core.page import new_page, set_finding
from reproduce.lectures.digits.erased_strokes import fall_numbers, prediction_numbers
from reproduce.lectures.digits.occlusion_maps import STRIDE, draw_maps, draw_predictions
from zfnet.data.images import standardize
from zfnet.occlusion import Occlusion

FIGURE = Figure(
    id="mnist_occlusion",
    title="Eights with erased parts",
    claim="The probability of 8 hides what its logit shows. Erasing a stroke yields the digit that "
    "the rest looks like.",
    inputs=("digits",),
    seed=0,
    time_budget=150,
    config={"digit": 8, "size": 7, "stride": STRIDE, "fill": "black", "fall": 0.1, "hidden": 0.01},
    manual=True,
    corpus="mnist",
    trains=True,
)
ERASED = 200  # eights, at most
ERASED_SIDES = {
    3: (None, -1),
    9: (1, -1),
    6: (-1, 1),
}  # by digit: the side of the erased stroke (row, column)


def compute(ctx: Context) -> Result:
    config, digits = FIGURE.config, ctx.dataset("digits")
    x, eights, correct = correct_eights(digits)
    black = standardize(torch.zeros(3, 1, 1, dtype=torch.uint8))[:, 0, 0]
    o = zfnet.occlude(
        digits.model,
        x,
        config["digit"],
        size=config["size"],
        stride=config["stride"],
        fill=black,
        batch=512,
        progress=ctx.progress,
    )
    fall = (1 - o.logit / o.baseline.logit[:, None, None]).numpy()  # (N, rows, cols)
    measured = {"eights": eights, "recognized": correct, "erased piece by piece": len(x)}
    measured |= {"accuracy, %": digits.accuracy}
    measured |= fall_numbers(o, fall, config)
    images = gray(x).double().numpy()
    measured |= prediction_numbers(o, images, config["digit"], ERASED_SIDES)
    claims, outcome = judge(measured)
    note = (
        f"A black square of {config['size']} pixels at every position. Of {eights} eights outside "
        f"the training set, {correct} are classified correctly, and the first {len(x)} of "
        "these are used. The picture shows those with the largest, the median and the smallest "
        "logit. 95 % intervals over eights. A digit's position is the mean of the squares that "
        "lead to it. The share of a logit is the lectures' measure; softmax does not determine "
        "its zero."
    )
    measured |= {"claims": claims}
    arrays = drawn_arrays(o, gray(x), fall)
    return Result(arrays, measured, outcome, n=len(x), note=note, scale=digits.scale)


def correct_eights(digits: Digits) -> tuple[torch.Tensor, int, int]:
    """The first correctly classified eights, the number of eights, and that of correct ones."""
    digit, test = FIGURE.config["digit"], digits.test
    x = test.batch(np.flatnonzero(test.labels == digit))
    logits = torch.cat([digits.model(part) for part in x.split(500)])
    correct = logits.argmax(1) == digit
    return x[correct][:ERASED], len(x), int(correct.sum())


def drawn_arrays(o: Occlusion, images: torch.Tensor, fall: np.ndarray) -> dict[str, np.ndarray]:
    """The eights with the largest, median and smallest logit, and means over all."""
    order = o.baseline.logit.argsort(descending=True, stable=True)
    rows = order[[0, len(order) // 2, -1]]
    return {
        "x": images[rows].numpy(),
        "mean": images.mean(0).numpy(),
        "mean fall": fall.mean(0),
        "fall": fall[rows.numpy()],
        "baseline": o.baseline.logit[rows].numpy(),
        "probability": o.probability[rows].numpy(),
        "logit": o.logit[rows].numpy(),
        "label": o.label[rows].numpy(),
        "mean probability": o.probability.mean(0).numpy(),
        "mean logit": o.logit.mean(0).numpy(),
    }


def judge(m: dict) -> tuple[dict[str, str], str]:
    """The claims that could be tested, each beyond its interval."""
    small_change = m["of these, those that move the probability by less than 0.01, %"]
    results = {
        "most positions that cost a tenth of the logit hardly move the probability": above(
            small_change, 50
        )
    }
    for k, (down, right) in ERASED_SIDES.items():
        offsets = m["where, in pixels from the middle of the ink"].get(str(k))
        if offsets:
            sides = [
                (offsets[direction], sign)
                for direction, sign in (("down", down), ("right", right))
                if sign
            ]
            name = {3: "left", 9: "lower left", 6: "upper right"}[k]
            results[f"the eights become a {k} where their {name} is erased"] = every(
                above(side) if sign > 0 else below(side) for side, sign in sides
            )
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    a, m, size = result.arrays, result.measured, FIGURE.config["size"]
    weakest = len(a["x"]) - 1
    rows = {
        f"weakest: logit {a['baseline'][weakest]:.1f}": tuple(
            a[key][weakest] for key in ("x", "probability", "logit")
        ),
        f"median: logit {a['baseline'][1]:.1f}": tuple(
            a[key][1] for key in ("x", "probability", "logit")
        ),
        f"mean of {result.n}": tuple(a[key] for key in ("mean", "mean probability", "mean logit")),
    }
    figure = new_page(6.3)
    grid = figure.subplots(3, 4)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        draw_maps(axes, name, *images, size=size)
    for axes, row in zip(grid[:-1, 3], (weakest, 1), strict=True):
        draw_predictions(axes, a["label"][row], a["x"].shape[-1], size)
    axes, turned = grid[-1, 3], m["turned into"]
    axes.bar(list(turned), list(turned.values()), color="0.6")
    axes.set(xlabel="predicted somewhere", ylabel=f"of {result.n} eights")
    hidden = m["of these, those that move the probability by less than 0.01, %"][0]
    set_finding(
        figure,
        f"{hidden:.0f} % of the positions that cost a tenth of the logit change the probability by "
        f"less than 0.01; {m['turned into another digit somewhere']} of {result.n} eights become "
        "another digit somewhere",
    )
    return {"mnist_occlusion.png": figure}
