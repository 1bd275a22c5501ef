"""The accuracy of the bundled network with one center crop and with the paper's ten crops.

The ten crops are the corners and the center, with and without a flip. The model card reports one
crop over all validation images. Ten crops take ten times as long, so both are measured on an
evenly spaced sample.
"""

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.row_arrays import probabilities
from reproduce.paper.rows import ranks
from zfnet.analysis.intervals import mean_interval

FIGURE = Figure(
    id="accuracy",
    title="The bundled network's accuracy, with one crop and with ten",
    claim="Averaging ten crops is better than one center crop.",
    inputs=("model", "images", "device"),
    seed=13,
    time_budget=1800,
    config={"images": {"cpu": 10_000, "cuda": 50_000}},
    manual=True,
    labels=True,
)
GAIN = "gain of ten crops, points"


def compute(ctx: Context) -> Result:
    images, count = ctx.images, FIGURE.config["images"][ctx.device_type]
    rows = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    part = images.subset(rows[images.labels[rows] >= 0])
    if not len(part):
        note = "The images have no labels; give a tree of images with --data."
        return Result({}, {}, "not run", n=0, note=note)
    rank = {views: ranks(probabilities(ctx.model, part, views), part.labels) for views in (1, 10)}
    measured, gain = {}, {}
    for k in (1, 5):
        hit = {views: 100.0 * (r <= k) for views, r in rank.items()}
        measured[f"top-{k} accuracy, %"] = {
            "1 crop": mean_interval(hit[1], seed=FIGURE.seed),
            "10 crops": mean_interval(hit[10], seed=FIGURE.seed),
        }
        gain[f"top-{k}"] = mean_interval(hit[10] - hit[1], seed=FIGURE.seed)
    measured[GAIN] = gain
    measured["claims"], summary = verdict(
        {f"ten crops are more accurate than one, {name}": above(g) for name, g in gain.items()}
    )
    note = (
        f"float32, crops of {ctx.model.size} pixels; {len(part):,} of {len(images):,} images, with "
        "95 % intervals."
    )
    return Result({}, measured, summary, n=len(part), note=note)


def draw(result: Result) -> dict[str, Picture]:
    """No picture: the pages show the numbers as a table."""
    return {}
