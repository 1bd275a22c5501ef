"""The released network's accuracy by one centre crop, and by the paper's ten: corners and centre, with and without flip.

The model card's numbers are one crop's over all validation images. Ten crops take ten times as long: of more validation images
than the plan has, evenly chosen ones stand for all, the same ones for both.
"""

import numpy as np

from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablations import probabilities, ranks
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import draw_table, new_figure

FIGURE = Figure(
    id="accuracy",
    title="The released network's accuracy, by one crop and by ten",
    claim="Averaging ten crops is better than one centre crop.",
    inputs=("model", "images", "device"),
    seed=13,
    time_budget=1800,
    config={"images": {"cpu": 10_000, "cuda": 50_000}},
    manual=True,
    labels=True,
)


def compute(ctx) -> Result:
    images = ctx.images
    most = FIGURE.config["images"][ctx.device_type]
    chosen = np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)
    part = images.subset(chosen[images.labels[chosen] >= 0])
    if not len(part):
        return Result(
            {},
            {},
            "not run",
            n=0,
            note="The images have no labels; give a tree of images with --data.",
        )
    places = {views: ranks(probabilities(ctx.model, part, views), part.labels) for views in (1, 10)}
    measured: dict = {
        f"top-{k} accuracy, %": {
            f"{views} crop{'s' * (views > 1)}": mean_interval(
                100.0 * (place <= k), seed=FIGURE.seed
            )
            for views, place in places.items()
        }
        for k in (1, 5)
    }
    gain = {
        k: mean_interval(
            100.0 * ((places[10] <= k).astype(float) - (places[1] <= k)), seed=FIGURE.seed
        )
        for k in (1, 5)
    }
    measured["gain of ten crops, points"] = {f"top-{k}": g for k, g in gain.items()}
    measured["claims"], said = verdict(
        {f"ten crops are better than one, top-{k}": above(g) for k, g in gain.items()}
    )
    note = f"float32, crops of {ctx.model.size} pixels; {len(part):,} of {len(images):,} images, with 95 % intervals."
    return Result({}, measured, said, n=len(part), note=note)


def draw(result: Result):
    if not result.measured:
        return {}
    rows = []
    for name in ("top-1 accuracy, %", "top-5 accuracy, %"):
        cells = [
            f"{v:.1f} [{low:.1f}, {high:.1f}]" for v, low, high in result.measured[name].values()
        ]
        rows.append(
            [
                name,
                *cells,
                "{:+.1f} [{:+.1f}, {:+.1f}]".format(
                    *result.measured["gain of ten crops, points"][name[:5]]
                ),
            ]
        )
    figure = new_figure(9, 1.5)
    axes = figure.subplots()
    draw_table(
        axes, ["", "one centre crop", "ten crops", "gain, points"], rows, [1.2, 1.4, 1.4, 1.4]
    )
    axes.set_title(f"The released network on {result.n:,} validation images, with 95 % intervals")
    return {"accuracy.png": figure}
