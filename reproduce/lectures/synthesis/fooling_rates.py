"""How often attacks succeed, against the largest allowed change.

500 images are changed by at most epsilon of 255 gray levels per pixel: by random signs, which have
little effect up to 2; by one step along the sign of the loss's gradient (FGSM, Goodfellow et al.
2015); by iterated steps (Kurakin et al. 2017); and by iterated steps towards a class chosen in
advance. An attack succeeds if the prediction changes, right or wrong, and a targeted one if the
chosen class is predicted. FGSM's direction does not depend on epsilon and is computed once. An
image on which an iterated attack succeeds at one epsilon is not attacked again at larger ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.core.claims import above, below, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.lectures.sampling import spread_indices
from zfnet.analysis.intervals import mean_interval, wilson
from zfnet.plot import LINES, new_figure
from zfnet.synthesis.adversarial import pgd
from zfnet.synthesis.base import clip
from zfnet.synthesis.perturbation import gray_level, loss_gradient

FIGURE = Figure(
    id="fooling_rates",
    title="Success rate of attacks against epsilon",
    claim="An invisible change along the gradient alters most predictions. Iterated steps need "
    "less of it than one step, and random signs of the same size have hardly any effect.",
    inputs=("model", "images"),
    seed=28,
    time_budget=900,
    config={
        "images": 500,
        "targeted": 100,
        "epsilon": [0.1, 0.25, 0.5, 1, 2, 4, 8],
        "random": [0.5, 2, 8],
        "iterated": [0.25, 0.5, 1, 2],
        "aimed": [1, 2, 4, 8],
        "steps": 4,
        "aimed steps": 8,
        "judged at": 0.5,
    },
    manual=True,
)
GAIN = "fooled by iterated steps and not by one, less the reverse, points"
KINDS = {
    "random": "random signs",
    "fgsm": "one step (FGSM)",
    "iterated": "iterated",
    "aimed": "iterated, at a chosen class",
}


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    chosen = spread_indices(ctx, config["images"])
    generator = torch.Generator().manual_seed(FIGURE.seed)
    kinds = {"random": "random", "fgsm": "epsilon", "iterated": "iterated", "aimed": "aimed"}
    success = {kind: {e: [] for e in config[key]} for kind, key in kinds.items()}
    correct = []
    parts = np.array_split(chosen, -(-len(chosen) // 50))
    for part in ctx.progress(parts, total=len(parts), desc="fooling"):
        x = ctx.images.batch(part).to(ctx.device)
        logits = ctx.model(x)
        label = logits.argmax(1)
        correct.append((label.cpu() == torch.from_numpy(ctx.images.labels[part])).numpy())
        slope, _ = loss_gradient(ctx.model, x, label)
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        for kind, direction in (("random", signs), ("fgsm", slope.sign())):
            for epsilon, results in success[kind].items():
                changed = ctx.model(clip(x + epsilon * gray_level(x) * direction)).argmax(1)
                results.append((changed != label).cpu().numpy())
        attack(ctx, success["iterated"], x, config["steps"], label=label)
    targeted = spread_indices(ctx, config["targeted"])
    for part in np.array_split(targeted, -(-len(targeted) // 50)):
        x = ctx.images.batch(part).to(ctx.device)
        logits = ctx.model(x)
        offset = torch.randint(1, logits.shape[1], (len(x),), generator=generator).to(x.device)
        attack(
            ctx,
            success["aimed"],
            x,
            config["aimed steps"],
            target=(logits.argmax(1) + offset) % logits.shape[1],
        )
    arrays = {
        f"{kind}.{e:g}": np.concatenate(results)
        for kind, rows in success.items()
        for e, results in rows.items()
    }
    arrays |= {"right": np.concatenate(correct), "images": chosen, "aimed.images": targeted}
    correct = arrays["right"]
    measured: dict = {
        KINDS[kind]: {f"{e:g}": summary(arrays[f"{kind}.{e:g}"]) for e in rows}
        for kind, rows in success.items()
    }
    at = f"{config['judged at']:g}"
    gain = 100.0 * (arrays[f"iterated.{at}"].astype(float) - arrays[f"fgsm.{at}"])
    measured[GAIN] = {at: mean_interval(gain, seed=FIGURE.seed)}
    measured["of the images classified rightly, %"] = {
        KINDS["fgsm"]: {
            f"{e:g}": percent_of(arrays[f"fgsm.{e:g}"][correct]) for e in config["epsilon"]
        },
        KINDS["iterated"]: {
            f"{e:g}": percent_of(arrays[f"iterated.{e:g}"][correct]) for e in config["iterated"]
        },
        "images": int(correct.sum()),
    }
    claims, outcome = judge(measured)
    note = (
        "Percentage of images whose prediction changes, with Wilson's 95 % intervals, against "
        f"epsilon in gray levels of 255. Iterated: at most {config['steps']} steps per epsilon, "
        f"after all smaller ones failed. Towards a random class: {config['aimed steps']} steps, "
        f"over {len(targeted)} images."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


def attack(ctx: Context, rows: dict[float, list], x: torch.Tensor, steps: int, **options) -> None:
    """Attack with increasing epsilon the images that are not fooled yet.

    Args:
        ctx: The network.
        rows: For each epsilon, a list to which the success of each image so far is appended.
        x: Images (N, 3, H, W).
        steps: Steps per epsilon.
        options: Labels or targets (N,).
    """
    done = np.zeros(len(x), dtype=bool)
    for epsilon, results in rows.items():
        remaining = torch.from_numpy(np.flatnonzero(~done)).to(x.device)
        if len(remaining):
            arguments = {key: classes[remaining] for key, classes in options.items()}
            result = pgd(
                ctx.model, x[remaining], epsilon=epsilon, steps=steps, **arguments, batch=50
            )
            done[remaining.cpu().numpy()] = result.success.cpu().numpy()
        results.append(done.copy())


def percent_of(success: np.ndarray) -> float | None:
    """The share of successes in percent; None without images."""
    return 100 * float(success.mean()) if len(success) else None


def summary(success: np.ndarray) -> list[float]:
    """The share of successes in percent, with Wilson's 95 % interval."""
    return [100 * v for v in (float(success.mean()), *wilson(int(success.sum()), len(success)))]


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """The claims at one epsilon, by their intervals."""
    at = f"{FIGURE.config['judged at']:g}"
    random, one = (measured[KINDS[kind]][at] for kind in ("random", "fgsm"))
    return verdict(
        {
            f"one step of {at} gray levels succeeds for more than half of the images": above(
                one, 50
            ),
            "iterated steps of the same total size succeed for more": above(measured[GAIN][at]),
            "random signs of that size succeed for less than one image in ten": below(random, 10),
        }
    )


def draw(result: Result) -> dict[str, Any]:
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
        xlabel="largest change of a pixel, gray levels of 255",
        ylabel="images whose prediction changes, %",
        ylim=(0, 102),
    )
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return {"fooling_rates.png": figure}
