"""Can we fool it? How often, against how many grey levels.

500 images are changed by at most epsilon of 255 grey levels a pixel: by random signs, which hardly matter up to 2; by one step
along the sign of the loss's gradient (FGSM, Goodfellow et al. 2015); by iterated steps (Kurakin et al. 2017); and by
iterated steps towards one class chosen in advance. An image counts as fooled where the network's own decision changes,
right or wrong as it was, and in a targeted attack where it is the chosen class. FGSM's direction does not depend on
epsilon, and is computed once; an image that an iterated attack fools at one epsilon lies in the cube of every larger one,
and is not attacked again.
"""

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import spread
from zfnet.analysis.intervals import mean_interval, wilson
from zfnet.plot import LINES, new_figure
from zfnet.synthesis.adversarial import pgd
from zfnet.synthesis.base import clip
from zfnet.synthesis.perturbation import gray_level, loss_gradient

FIGURE = Figure(
    id="fooling_rates",
    title="Fooling: success rate against epsilon",
    claim="A change along the gradient that nobody sees fools the network in most images, iterated steps need less of it than "
    "one, and random signs of the same size hardly do anything.",
    inputs=("model", "images"),
    seed=28,
    time_budget=900,
    config={
        "images": 500, "targeted": 100, "epsilon": [0.1, 0.25, 0.5, 1, 2, 4, 8], "random": [0.5, 2, 8],
        "iterated": [0.25, 0.5, 1, 2], "aimed": [1, 2, 4, 8], "steps": 4, "aimed steps": 8, "judged at": 0.5,
    },
    manual=True,
)  # fmt: skip
GAIN = "fooled by iterated steps and not by one, less the reverse, points"
KINDS = {
    "random": "random signs",
    "fgsm": "one step (FGSM)",
    "iterated": "iterated",
    "aimed": "iterated, at a chosen class",
}


def compute(ctx) -> Result:
    config = FIGURE.config
    chosen = spread(ctx, config["images"])
    generator = torch.Generator().manual_seed(FIGURE.seed)
    kinds = {"random": "random", "fgsm": "epsilon", "iterated": "iterated", "aimed": "aimed"}
    fooled = {kind: {e: [] for e in config[key]} for kind, key in kinds.items()}
    right = []
    parts = np.array_split(chosen, -(-len(chosen) // 50))
    for part in ctx.progress(parts, total=len(parts), desc="fooling"):
        x = ctx.images.batch(part).to(ctx.device)
        logits = ctx.model(x)
        label = logits.argmax(1)
        right.append((label.cpu() == torch.from_numpy(ctx.images.labels[part])).numpy())
        slope, _ = loss_gradient(ctx.model, x, label)
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        for kind, direction in (("random", signs), ("fgsm", slope.sign())):
            for epsilon, found in fooled[kind].items():
                changed = ctx.model(clip(x + epsilon * gray_level(x) * direction)).argmax(1)
                found.append((changed != label).cpu().numpy())
        attack(ctx, fooled["iterated"], x, config["steps"], label=label)
    few = spread(ctx, config["targeted"])
    for part in np.array_split(few, -(-len(few) // 50)):
        x = ctx.images.batch(part).to(ctx.device)
        logits = ctx.model(x)
        goal = torch.randint(1, logits.shape[1], (len(x),), generator=generator).to(x.device)
        attack(
            ctx,
            fooled["aimed"],
            x,
            config["aimed steps"],
            target=(logits.argmax(1) + goal) % logits.shape[1],
        )
    arrays = {
        f"{kind}.{e:g}": np.concatenate(found)
        for kind, rows in fooled.items()
        for e, found in rows.items()
    }
    arrays |= {"right": np.concatenate(right), "images": chosen, "aimed.images": few}
    right = arrays["right"]
    measured: dict = {
        KINDS[kind]: {f"{e:g}": summary(arrays[f"{kind}.{e:g}"]) for e in rows}
        for kind, rows in fooled.items()
    }
    at = f"{config['judged at']:g}"
    gained = 100.0 * (arrays[f"iterated.{at}"].astype(float) - arrays[f"fgsm.{at}"])
    measured[GAIN] = {at: mean_interval(gained, seed=FIGURE.seed)}
    measured["of the images classified rightly, %"] = {
        KINDS["fgsm"]: {f"{e:g}": percent(arrays[f"fgsm.{e:g}"][right]) for e in config["epsilon"]},
        KINDS["iterated"]: {
            f"{e:g}": percent(arrays[f"iterated.{e:g}"][right]) for e in config["iterated"]
        },
        "images": int(right.sum()),
    }
    claims, found = judge(measured)
    note = (
        "Shares of the images whose decision changes, in per cent, with 95 % intervals (Wilson), against epsilon in grey "
        f"levels of 255. Iterated: at most {config['steps']} steps with each epsilon, after all smaller ones failed; at a "
        f"class drawn at random: {config['aimed steps']}, over {len(few)} images."
    )
    return Result(arrays, measured | {"claims": claims}, found, n=len(chosen), note=note)


def attack(ctx, rows: dict[float, list], x: torch.Tensor, steps: int, **options) -> None:
    """Attack with each epsilon in turn the images that none before fooled, and write down which are fooled by now."""
    done = np.zeros(len(x), dtype=bool)
    for epsilon, found in rows.items():
        left = torch.from_numpy(np.flatnonzero(~done)).to(x.device)
        if len(left):
            now = {key: classes[left] for key, classes in options.items()}
            result = pgd(ctx.model, x[left], epsilon=epsilon, steps=steps, **now, batch=50)
            done[left.cpu().numpy()] = result.success.cpu().numpy()
        found.append(done.copy())


def percent(fooled: np.ndarray) -> float | None:
    return 100 * float(fooled.mean()) if len(fooled) else None


def summary(fooled: np.ndarray) -> list[float]:
    """The share of fooled images in per cent, with Wilson's 95 % interval."""
    return [100 * v for v in (float(fooled.mean()), *wilson(int(fooled.sum()), len(fooled)))]


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """The claims at one epsilon, by their intervals."""
    at = f"{FIGURE.config['judged at']:g}"
    random, one = (measured[KINDS[kind]][at] for kind in ("random", "fgsm"))
    often = above(random, 10)
    return verdict(
        {
            f"one step of {at} grey levels fools the network in more than half of the images": above(
                one, 50
            ),
            "iterated steps of at most that size fool it in more": above(measured[GAIN][at]),
            "random signs of that size fool it in fewer than one image in ten": None
            if often is None
            else not often,
        }
    )


def draw(result: Result):
    figure = new_figure(6.8, 4.2)
    axes = figure.subplots()
    for (kind, name), colour in zip(KINDS.items(), LINES, strict=False):
        rows = result.measured[name]
        x, values = [float(e) for e in rows], np.array(list(rows.values()))
        axes.fill_between(x, values[:, 1], values[:, 2], color=colour, alpha=0.2, linewidth=0)
        axes.plot(
            x,
            values[:, 0],
            "o-",
            color=colour,
            markersize=4,
            label=f"{name} (n = {len(result.arrays[f'{kind}.{x[0]:g}'])})",
        )
    axes.set_xscale("log")
    ticks = FIGURE.config["epsilon"]
    axes.set_xticks(ticks, [f"{e:g}" for e in ticks])
    axes.minorticks_off()
    axes.set(
        xlabel="largest change of a pixel, in grey levels of 255",
        ylabel="images whose decision changes, %",
        ylim=(0, 102),
    )
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return {"fooling_rates.png": figure}
