"""MNIST: an 8 is erased piece by piece, and the network asked each time how much of an 8 is left.

A black square, the colour of the paper, moves over the digit. The lectures draw the probability of 8 and its logit, with the
relative decrease of the logit on top of the picture. Two claims are tested over all eights that the network recognises and
was not trained on. The probability saturates: most positions that cost a tenth of the logit do not move it by a hundredth.
And the network reads what is left as we do: it sees a 3 where the left of the loops is gone, a 9 where the lower left is, a 6
where the upper right is. The middle of the erased squares is compared with the middle of the ink.
"""

import matplotlib.patches as shapes
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap

import zfnet
from reproduce.core.claims import above, below, every, verdict
from reproduce.core.digits import grey
from reproduce.core.figure import Figure, Result
from zfnet.analysis.intervals import mean_interval
from zfnet.data.images import standardize
from zfnet.plot import HEAT, align_occlusion_map, heat_map, new_figure, show

FIGURE = Figure(
    id="mnist_occlusion",
    title="Eights, erased piece by piece",
    claim="The probability of 8 hides what its logit shows; erasing a stroke makes the digit that the rest looks like.",
    inputs=("digits",),
    seed=0,
    time_budget=150,
    config={"digit": 8, "size": 7, "stride": 1, "fill": "black", "fall": 0.1, "hidden": 0.01},
    manual=True,
    corpus="mnist",
    trains=True,
)
LEFT_OF_AN_8 = {
    3: (None, -1),
    9: (1, -1),
    6: (-1, 1),
}  # digit -> on which side its missing stroke was: row, column


def compute(ctx) -> Result:
    config, model, test = FIGURE.config, ctx.dataset("digits").model, ctx.dataset("digits").test
    digit, black = config["digit"], standardize(torch.zeros(3, 1, 1, dtype=torch.uint8))[:, 0, 0]
    x = test.batch(np.flatnonzero(test.labels == digit))
    eights = len(x)
    logits = torch.cat([model(part) for part in x.split(500)])
    recognised = logits.argmax(1) == digit
    known, x = int(recognised.sum()), x[recognised][:200]
    o = zfnet.occlude(
        model,
        x,
        digit,
        size=config["size"],
        stride=config["stride"],
        fill=black,
        batch=512,
        progress=ctx.progress,
    )
    base = o.baseline
    fall = (1 - o.logit / base.logit[:, None, None]).numpy()  # (N, rows, cols), as a share
    hidden = (base.probability[:, None, None] - o.probability).numpy() < config["hidden"]
    large = fall >= config["fall"]
    some = large.any((1, 2))
    share = np.array([100 * h[l].mean() for h, l in zip(hidden[some], large[some], strict=True)])
    label = o.label.numpy()
    measured: dict = {
        "eights": eights, "recognised": known, "erased piece by piece": len(x), "accuracy, %": ctx.dataset("digits").accuracy,
        "largest fall of the logit, %": mean_interval(100 * fall.max((1, 2))),
        "largest fall of the probability": mean_interval((base.probability - o.probability.amin((1, 2))).numpy()),
        "positions that cost a tenth of the logit, %": mean_interval(100 * large.mean((1, 2))),
        "of these, those that move the probability by less than 0.01, %": mean_interval(share),
        "turned into another digit somewhere": int((label != digit).any((1, 2)).sum()),
        "turned into": {str(k): int((label == k).any((1, 2)).sum()) for k in range(10) if k != digit},
        "where, in pixels from the middle of the ink": {},
    }  # fmt: skip
    middle = (o.boxes[..., :2] + o.boxes[..., 2:] - 1).double().numpy() / 2  # (rows, cols, 2)
    ink = centre(grey(x).double().numpy())
    for k in LEFT_OF_AN_8:
        turned = [n for n in range(len(x)) if (label[n] == k).any()]
        if len(turned) > 1:
            offset = np.array([middle[label[n] == k].mean(0) - ink[n] for n in turned])
            measured["where, in pixels from the middle of the ink"][str(k)] = {
                "eights": len(turned), "down": mean_interval(offset[:, 0]), "right": mean_interval(offset[:, 1]),
            }  # fmt: skip
    claims, said = judge(measured)
    order = base.logit.argsort(descending=True, stable=True)
    rows = order[[0, len(order) // 2, -1]]
    arrays = {
        "x": grey(x[rows]).numpy(),
        "mean": grey(x).mean(0).numpy(),
        "mean fall": fall.mean(0),
        "fall": fall[rows.numpy()],
    }
    arrays["baseline"] = base.logit[rows].numpy()
    arrays |= {name: getattr(o, name)[rows].numpy() for name in ("probability", "logit", "label")}
    arrays |= {
        f"mean {name}": getattr(o, name).mean(0).numpy() for name in ("probability", "logit")
    }
    note = (
        f"A black square of {config['size']} pixels at every position. Of {eights} eights that the network was not trained on "
        f"{known} are recognised, and the first {len(x)} of these erased; drawn are the one with the largest logit, the median "
        "and the smallest. 95 % intervals over eights; a digit is placed by the mean of the positions that are taken for it. "
        "A share of a logit is the lectures' measure: the softmax leaves open where its zero is."
    )
    return Result(
        arrays,
        measured | {"claims": claims},
        said,
        n=len(x),
        note=note,
        scale=ctx.dataset("digits").scale,
    )


def centre(images: np.ndarray) -> np.ndarray:
    """The middle of the ink of images (N, H, W): (N, 2) as (row, column)."""
    rows, columns = (np.arange(n) for n in images.shape[1:])
    total = images.sum((1, 2))
    return np.stack([images.sum(2) @ rows / total, images.sum(1) @ columns / total], 1)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Reproduced if all claims that could be tested hold beyond their intervals; partial if some do."""
    hardly = m["of these, those that move the probability by less than 0.01, %"]
    held = {
        "most positions that cost a tenth of the logit hardly move the probability": above(
            hardly, 50
        )
    }
    for k, (down, right) in LEFT_OF_AN_8.items():
        found = m["where, in pixels from the middle of the ink"].get(str(k))
        if found:
            sides = [(found[way], sign) for way, sign in (("down", down), ("right", right)) if sign]
            name = {3: "left", 9: "lower left", 6: "upper right"}[k]
            held[f"the eights become a {k} where their {name} is erased"] = every(
                above(side) if sign > 0 else below(side) for side, sign in sides
            )
    return verdict(held)


def draw(result: Result):
    a, m, size = result.arrays, result.measured, FIGURE.config["size"]
    names = [
        f"{name}: logit {logit:.1f}"
        for name, logit in zip(("strongest", "median", "weakest"), a["baseline"], strict=True)
    ]
    figure = new_figure(11.5, 7.7)
    grid = figure.subplots(len(names) + 1, 5)
    digits = ListedColormap(colormaps["tab10"].colors)  # pyright: ignore[reportAttributeAccessIssue]
    rows = [
        (a["x"][n], a["probability"][n], a["logit"][n], a["fall"][n]) for n in range(len(names))
    ]
    rows.append((a["mean"], a["mean probability"], a["mean logit"], a["mean fall"]))
    for axes, name, (x, probability, logit, fall) in zip(
        grid, [*names, f"mean of {result.n}"], rows, strict=True
    ):
        picture = np.repeat(x[..., None], 3, axis=2)
        show(axes[0], picture, name)
        axes[0].add_patch(
            shapes.Rectangle((-0.5, -0.5), size, size, fill=False, edgecolor="yellow", linewidth=1)
        )
        heat_map(axes[1], probability, "probability of 8", limits=(0, 1))
        heat_map(axes[2], logit, "logit of 8")
        for panel in axes[1:3]:
            align_occlusion_map(panel, size, FIGURE.config["stride"], x.shape[-1])
        show(axes[3], np.zeros_like(picture), "relative decrease of the logit")
        edge = size / 2 - 1  # a position is drawn at the middle of its square
        extent = (edge, edge + fall.shape[1], edge + fall.shape[0], edge)
        shown = axes[3].imshow(100 * fall, cmap=HEAT, extent=extent, vmin=0)
        axes[3].contour(x, levels=[0.5 * x.max()], colors="white", linewidths=1)
        axes[3].set(xlim=(-0.5, x.shape[1] - 0.5), ylim=(x.shape[0] - 0.5, -0.5))
        scale(
            figure.colorbar(
                ScalarMappable(shown.norm, shown.cmap),
                ax=axes[3],
                fraction=0.046,
                pad=0.03,
                format="%d %%",
            )
        )
    for axes, label in zip(grid[:, 4], a["label"], strict=False):
        shown = axes.imshow(label, cmap=digits, vmin=-0.5, vmax=9.5)
        align_occlusion_map(axes, size, FIGURE.config["stride"], a["x"].shape[-1])
        axes.set_title("taken for")
        axes.set_axis_off()
        scale(figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03, ticks=range(10)))
    axes, turned = grid[-1, 4], m["turned into"]
    axes.bar(list(turned), list(turned.values()), color="0.6")
    axes.set_title(f"turned into, of {result.n} eights")
    return {"mnist_occlusion.png": figure}


def scale(bar) -> None:
    """The style of `heat`'s colour bars."""
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
