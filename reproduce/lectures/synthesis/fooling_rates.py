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
from reproduce.core.page import label_lines, new_page, set_finding
from reproduce.lectures.sampling import spread_indices
from reproduce.lectures.synthesis.iterated_attack import Success, attack
from zfnet.analysis.intervals import mean_interval, wilson
from zfnet.plot import LINES
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
    targeted = spread_indices(ctx, config["targeted"])
    generator = torch.Generator().manual_seed(FIGURE.seed)
    success, correct = untargeted(ctx, chosen, generator)
    success["aimed"] = at_random_classes(ctx, targeted, generator)
    arrays = {
        f"{kind}.{e:g}": np.concatenate(results)
        for kind, rows in success.items()
        for e, results in rows.items()
    }
    arrays |= {"right": correct, "images": chosen, "aimed.images": targeted}
    measured = measure(arrays, success)
    claims, outcome = judge(measured)
    note = (
        "Percentage of images whose prediction changes, with Wilson's 95 % intervals, against "
        f"epsilon in gray levels of 255. Iterated: at most {config['steps']} steps per epsilon, "
        f"after all smaller ones failed. Towards a random class: {config['aimed steps']} steps, "
        f"over {len(targeted)} images."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


def untargeted(
    ctx: Context, chosen: np.ndarray, generator: torch.Generator
) -> tuple[dict[str, Success], np.ndarray]:
    """Attack images by random signs, FGSM and iterated steps.

    Returns:
        The successes by attack, and which images are classified correctly.
    """
    config = FIGURE.config
    epsilons = {"random": config["random"], "fgsm": config["epsilon"]}
    epsilons["iterated"] = config["iterated"]
    success: dict[str, Success] = {kind: {e: [] for e in of} for kind, of in epsilons.items()}
    correct = []
    parts = batches(chosen)
    for part in ctx.progress(parts, total=len(parts), desc="fooling"):
        x = ctx.images.batch(part).to(ctx.device)
        label = ctx.model(x).argmax(1)
        correct.append(label.cpu().numpy() == ctx.images.labels[part])
        slope, _ = loss_gradient(ctx.model, x, label)
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        for kind, direction in (("random", signs), ("fgsm", slope.sign())):
            for epsilon, results in success[kind].items():
                changed = ctx.model(clip(x + epsilon * gray_level(x) * direction)).argmax(1)
                results.append((changed != label).cpu().numpy())
        attack(ctx, success["iterated"], x, config["steps"], label=label)
    return success, np.concatenate(correct)


def at_random_classes(ctx: Context, chosen: np.ndarray, generator: torch.Generator) -> Success:
    """Attack images by iterated steps towards random other classes."""
    success: Success = {e: [] for e in FIGURE.config["aimed"]}
    for part in batches(chosen):
        x = ctx.images.batch(part).to(ctx.device)
        logits = ctx.model(x)
        classes = logits.shape[1]
        offset = torch.randint(1, classes, (len(x),), generator=generator).to(x.device)
        target = (logits.argmax(1) + offset) % classes
        attack(ctx, success, x, FIGURE.config["aimed steps"], target=target)
    return success


def batches(chosen: np.ndarray) -> list[np.ndarray]:
    return np.array_split(chosen, -(-len(chosen) // 50))


def measure(arrays: dict[str, np.ndarray], success: dict[str, Success]) -> dict[str, Any]:
    """The success rates by attack and epsilon."""
    measured: dict = {
        KINDS[kind]: {f"{e:g}": summary(arrays[f"{kind}.{e:g}"]) for e in success[kind]}
        for kind in KINDS
    }
    at = f"{FIGURE.config['judged at']:g}"
    gain = 100.0 * (arrays[f"iterated.{at}"].astype(float) - arrays[f"fgsm.{at}"])
    measured[GAIN] = {at: mean_interval(gain, seed=FIGURE.seed)}
    correct = arrays["right"]
    measured["of the images classified rightly, %"] = {
        KINDS[kind]: {f"{e:g}": percent_of(arrays[f"{kind}.{e:g}"][correct]) for e in success[kind]}
        for kind in ("fgsm", "iterated")
    } | {"images": int(correct.sum())}
    return measured


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
    figure = new_page(4.4)
    axes = figure.subplots()
    epsilons, ends = FIGURE.config["epsilon"], {}
    for (kind, name), color in zip(KINDS.items(), LINES, strict=False):
        rows = result.measured[name]
        x, values = [float(e) for e in rows], np.array(list(rows.values()))
        axes.fill_between(x, values[:, 1], values[:, 2], color=color, alpha=0.2, linewidth=0)
        axes.plot(x, values[:, 0], "o-", color=color, markersize=4)
        n = len(result.arrays[f"{kind}.{x[0]:g}"])
        ends[f"{name}\n(n = {n}, up to {x[-1]:g})"] = (values[-1, 0], color)
    axes.set_xscale("log")
    axes.set_xticks(epsilons, [f"{e:g}" for e in epsilons])
    axes.minorticks_off()
    axes.set(
        xlabel="largest change of a pixel, gray levels of 255",
        ylabel="images whose prediction changes, %",
        ylim=(0, 102),
    )
    label_lines(axes, ends, epsilons[-1])
    at = f"{FIGURE.config['judged at']:g}"
    rates = {kind: result.measured[KINDS[kind]][at][0] for kind in ("fgsm", "iterated", "random")}
    set_finding(
        figure,
        f"Changes of {at} gray levels alter {rates['fgsm']:.0f} % of the predictions in one step, "
        f"{rates['iterated']:.0f} % in iterated steps, and {rates['random']:.0f} % at random",
    )
    return {"fooling_rates.png": figure}
