"""Canonical examples: what the network would have to see to be sure of a class.

From grey noise the logit of a class is driven up by gradient ascent (Simonyan et al. 2014, section 2), in frequency space,
in the colours of photographs and under jitter (Olah et al. 2017). The network must take the image for its class: what it takes
for another class climbs on, up its own class's probability. That is counted before and after. The same ascent on pixels
alone reaches the class as well and shows nothing; of the same classes, its images are rougher (total variation).
"""

import numpy as np
import torch
import torch.nn.functional as F

from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import spread
from zfnet.analysis.intervals import wilson
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.base import total_variation
from zfnet.synthesis.fourier import color_root

FIGURE = Figure(
    id="class_images",
    title="Canonical examples of classes",
    claim="The network takes the image that is drawn for a class for that class, at the latest after climbing on; regularised, "
    "it is as smooth as photographs are, and smoother than from ascent on pixels alone.",
    inputs=("model", "images"),
    seed=24,
    time_budget=600,
    config={
        "classes": 50, "shown": 20, "plain": 5, "images": 100, "steps": 60, "rate": 0.03, "noise": 0.05, "jitter": 16,
        "variation": 40.0, "decay": 5.0, "share": 0.75,
        "part steps": 20, "part at most": 3,
    },
    manual=True,
)  # fmt: skip


def compute(ctx) -> Result:
    config, names = FIGURE.config, ctx.model.classes
    photographs = ctx.images.batch(spread(ctx, config["images"]))
    colours = color_root(photographs)
    target = np.linspace(0, len(names) - 1, min(len(names), config["classes"])).round().astype(int)
    generator = torch.Generator().manual_seed(FIGURE.seed)
    noise = config["noise"] * torch.randn(
        len(target), 3, *photographs.shape[-2:], generator=generator
    ).to(ctx.device)
    options = {
        "steps": config["steps"],
        "rate": config["rate"],
        "batch": 10,
        "progress": ctx.progress,
    }
    options |= {"generator": generator}
    held = {"frequency": True, "colors": colours} | {
        key: config[key] for key in ("jitter", "variation", "decay")
    }
    drawn = ascend(ctx.model, noise, target.tolist(), **held, **options).pixels
    parted, climbs = part(ctx, drawn, target, **held, **options | {"steps": config["part steps"]})
    few = np.linspace(0, len(target) - 1, min(len(target), config["plain"])).round().astype(int)
    plain = ascend(ctx.model, noise[few], target[few].tolist(), **options)
    kinds = {
        "regularised": (parted, target),
        "before they were parted": (drawn, target),
        "pixels alone": (plain.pixels, target[few]),
    }
    arrays: dict[str, np.ndarray] = {"colours": colours.numpy(), "few": few}
    measured: dict = {
        "total variation of photographs": [
            float(v) for v in total_variation(photographs).quantile(QUANTILES)
        ]
    }
    for kind, (pixels, wanted) in kinds.items():
        probability = probabilities(ctx.model, pixels)
        predicted, own = (
            probability.argmax(1).numpy(),
            probability[range(len(wanted)), wanted].numpy(),
        )
        arrays |= {
            f"{kind}.pixels": pixels.cpu().numpy(),
            f"{kind}.target": wanted,
            f"{kind}.predicted": predicted,
        }
        arrays[f"{kind}.probability"] = own
        measured[kind] = {
            "classes": len(wanted), "taken for their class, %": 100 * float((predicted == wanted).mean()),
            "probability of the class, median": float(np.median(own)), "total variation": float(total_variation(pixels).mean()),
            "total variation, median": float(total_variation(pixels).median()),
            "total variation, median of those that were drawn on pixels alone too": float(
                total_variation(pixels if len(pixels) == len(few) else pixels[few]).median()
            ),
            "taken for another": {names[t]: names[p] for t, p in zip(wanted, predicted, strict=True) if t != p},
        }  # fmt: skip
    measured["climbs to part them, by class"] = {
        names[t]: n for t, n in zip(target, climbs, strict=True) if n
    }
    arrays["names"] = np.array(names)
    claims, found = judge(measured)
    note = (
        f"{len(target)} of {len(names)} classes, spread evenly over them; the picture shows {config['shown']}. What the "
        f"network takes for another class is parted from it: it climbs on, at most {config['part at most']} times, up the "
        f"logarithm of its own class's probability. Total variation of {len(photographs)} photographs of the corpus: least, "
        "median and largest; the claims compare medians, with those of pixels alone of the same classes."
    )
    return Result(arrays, measured | {"claims": claims}, found, n=len(target), note=note)


QUANTILES = torch.tensor([0.0, 0.5, 1.0])


def part(
    ctx, pixels: torch.Tensor, target: np.ndarray, **options
) -> tuple[torch.Tensor, list[int]]:
    """What the network takes for another class climbs on, up the logarithm of its own class's probability; how often each did.

    A class's logit can be high while that of a class like it is higher. In the logits z that slope is one_hot(y) - softmax(z),
    taken once for each climb, and scaled so that its own class weighs 1.
    """
    pixels, climbs, own = pixels.clone(), [0] * len(target), torch.from_numpy(target)
    for _ in range(FIGURE.config["part at most"]):
        probability = probabilities(ctx.model, pixels)
        wrong = torch.nonzero(probability.argmax(1) != own)[:, 0]
        if not len(wrong):
            break
        slope = F.one_hot(own[wrong], probability.shape[1]) - probability[wrong]
        slope = slope / slope.amax(1, keepdim=True)
        pixels[wrong] = ascend(ctx.model, pixels[wrong], slope, **options).pixels
        for i in wrong.tolist():
            climbs[i] += 1
    return pixels, climbs


def probabilities(model, pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(some) for some in pixels.split(20)]).softmax(1).cpu()


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Whether images are taken for their class, and whether only regularised ones are as smooth as photographs."""
    least, (_, median, _) = 100 * FIGURE.config["share"], measured["total variation of photographs"]
    first, drawn, plain = (
        measured[kind] for kind in ("before they were parted", "regularised", "pixels alone")
    )
    often = {}
    for when, row in (("at once", first), ("when those taken for another have climbed on", drawn)):
        of, share = row["classes"], row["taken for their class, %"]
        often[when] = above([share, *(100 * v for v in wilson(round(of * share / 100), of))], least)
    rough = "total variation, median"
    paired = f"{rough} of those that were drawn on pixels alone too"
    return verdict(
        {
            f"more than {least:g} % of the images are taken for their class {when}": yes
            for when, yes in often.items()
        }
        | {
            "without regularisers they are rougher than the regularised ones": plain[paired]
            > drawn[paired],
            "regularised, they are no rougher than the median photograph": drawn[rough] <= median,
        }
    )


def draw(result: Result):
    a, config = result.arrays, FIGURE.config
    names, few = a["names"], a["few"]
    shown = np.linspace(0, len(a["regularised.target"]) - 1, config["shown"]).round().astype(int)
    columns = len(few)
    rows = -(-len(shown) // columns)
    figure = new_figure(1.72 * columns, 2.1 * (rows + 1))
    grid = figure.subplots(rows + 1, columns, squeeze=False)
    for axes, i in zip(grid[:rows].flat, shown, strict=True):
        caption(axes, a, "regularised", i, names)
    for axes, i in zip(grid[rows], range(columns), strict=True):
        caption(axes, a, "pixels alone", i, names, "pixels alone: ")
    return {"class_images.jpg": figure}


def caption(axes, a: dict, kind: str, i: int, names: np.ndarray, before: str = "") -> None:
    """One image with its class, its probability, and what it is taken for where that is another."""
    target, predicted = int(a[f"{kind}.target"][i]), int(a[f"{kind}.predicted"][i])
    own = f"{a[f'{kind}.probability'][i]:.2f}"
    said = f"probability {own}" if target == predicted else f"{own}; taken for {names[predicted]}"
    text = f"{before}{names[target]}\n{said}"
    show(axes, photograph(a[f"{kind}.pixels"][i : i + 1])[0], text)
    axes.title.set_fontsize(7.5)
