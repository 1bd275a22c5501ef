"""Adversarial examples: the smallest change, one step, a chosen class, and images of nothing.

Each image has its prediction; the smallest change in the L2 norm that alters it (DeepFool,
Moosavi-Dezfooli et al. 2016), shown with more contrast; one step of FGSM; and PGD to a distant
class. Below are images that started as noise and maximize a class's probability without a
regularizer (Nguyen et al. 2015); the network predicts the class with confidence. The smallest
changes are measured on more images, relative to the norm of the image as in the DeepFool paper: a
robustness of 0.01 means that one hundredth of the norm suffices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import blank, caption, new_page, set_finding
from reproduce.lectures.sampling import spread_indices
from reproduce.lectures.synthesis.attack_pictures import draw_attacks, prediction
from reproduce.paper.boxed_images import choose_images
from zfnet.data.images import to_pixels
from zfnet.plot import photograph, show
from zfnet.synthesis.adversarial import fgsm, pgd, rubbish
from zfnet.synthesis.deepfool import deepfool
from zfnet.synthesis.perturbation import Adversarial

FIGURE = Figure(
    id="fooling",
    title="Adversarial examples: smallest changes, chosen classes, rubbish",
    claim="Changes much smaller than the image alter the class, and changes of a few gray levels "
    "lead to a chosen class. Images optimized from noise are predicted with confidence.",
    inputs=("model", "images"),
    seed=29,
    time_budget=300,
    config={
        "shown": 3,
        "images": 60,
        "epsilon": 1.0,
        "goal": "n03063599",
        "aimed": 8.0,
        "steps": 20,
        "rubbish": 10,
        "noise": 0.3,
        "climbing": 80,
        "rate": 0.03,
        "robustness": 0.02,
        "confidence": 0.9,
    },
    files=("../../paper/fig7_boxes.yaml",),
    manual=True,
)


FIELDS = {  # names of arrays in the record -> fields of an attack's result
    "pixels": "pixels",
    "predicted": "predicted",
    "probability": "probability",
    "fooled": "success",
    "largest": "linf",
    "norm": "norm",
}


def compute(ctx: Context) -> Result:
    config, names = FIGURE.config, ctx.model.classes
    arrays, examples = attack_examples(ctx)
    smallest_arrays, smallest = smallest_changes(ctx)
    rubbish_arrays, rubbish_numbers = optimize_rubbish(ctx, arrays["x"].shape[1:])
    arrays |= smallest_arrays | rubbish_arrays | {"names": np.array(names)}
    measured = {"smallest changes": smallest, "examples": examples, "rubbish": rubbish_numbers}
    claims, outcome = judge(measured)
    note = (
        "Images of Fig. 7. An image that is misclassified may change to its true class. The "
        "smallest change is so in the L2 norm: single pixels may change more than by one step of "
        f"{config['epsilon']:g} gray level, which changes all. The chosen class is "
        f"{names[int(arrays['chosen.goal'])]}, within {config['aimed']:g} levels. Changes are "
        "shown on gray, each with its own contrast. Robustness is over images evenly spread over "
        "the corpus. Rubbish starts from noise, whose own prediction is recorded too."
    )
    n = smallest["images"]
    return Result(arrays, measured | {"claims": claims}, outcome, n=n, note=note)


def attack_examples(ctx: Context) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Attack the images that are shown in three ways."""
    config, names, wnids = FIGURE.config, ctx.model.classes, ctx.model.wnids
    _, shown, true, _ = zip(*choose_images(ctx)[: config["shown"]], strict=True)
    x = torch.cat(shown)
    target = wnids.index(config["goal"]) if config["goal"] in wnids else len(names) - 1
    attacks = {
        "smallest": deepfool(ctx.model, x),
        "one step": fgsm(ctx.model, x, epsilon=config["epsilon"]),
        "chosen": pgd(ctx.model, x, epsilon=config["aimed"], steps=config["steps"], target=target),
    }
    probability, label = ctx.model(x).softmax(1).max(1)
    arrays = {
        "x": x.cpu().numpy(),
        "true": np.array(true),
        "label": label.cpu().numpy(),
        "probability": probability.cpu().numpy(),
        "chosen.goal": np.array(target),
    }
    for attack, a in attacks.items():
        arrays |= result_arrays(attack, a)
    measured = {
        attack: {
            "fooled": a.success.tolist(),
            "taken for": [names[i] for i in a.predicted.tolist()],
        }
        for attack, a in attacks.items()
    }
    return arrays, measured


def result_arrays(attack: str, a: Adversarial) -> dict[str, np.ndarray]:
    return {f"{attack}.{key}": getattr(a, field).cpu().numpy() for key, field in FIELDS.items()}


def smallest_changes(ctx: Context) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Measure the smallest changes of images that are evenly spread over the corpus."""
    chosen = spread_indices(ctx, FIGURE.config["images"])
    x = ctx.images.batch(chosen).to(ctx.device)
    s = deepfool(ctx.model, x, progress=ctx.progress)
    robustness = s.norm / (255 * to_pixels(x).flatten(1).norm(dim=1))
    arrays = {
        "robustness": robustness.cpu().numpy(),
        "robust.fooled": s.success.cpu().numpy(),
    }
    rms = s.norm / x[0].numel() ** 0.5
    measured = {
        "images": len(chosen),
        "fooled, %": 100 * float(s.success.float().mean()),
        "robustness: mean norm of the change over the image's": float(robustness.mean()),
        "largest change of a pixel, median, gray levels": float(s.linf[s.success].median()),
        "change of a pixel, root mean square, median, gray levels": float(rms.median()),
    }
    return arrays, measured


def optimize_rubbish(
    ctx: Context, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Optimize noise images of a shape (3, H, W), each for one of evenly spread classes."""
    config, names = FIGURE.config, ctx.model.classes
    targets = np.linspace(0, len(names) - 1, min(len(names), config["rubbish"])).round().astype(int)
    generator = torch.Generator().manual_seed(FIGURE.seed)
    noise = config["noise"] * torch.randn(len(targets), *shape, generator=generator)
    r = rubbish(
        ctx.model,
        noise.to(ctx.device),
        targets.tolist(),
        steps=config["climbing"],
        rate=config["rate"],
        progress=ctx.progress,
    )
    arrays = result_arrays("rubbish", r)
    arrays |= {"rubbish.goal": targets, "noise.predicted": r.label.cpu().numpy()}
    measured = {
        "images": len(targets),
        "taken for their class": int(r.success.sum()),
        "probability": r.probability.tolist(),
        "the noise was taken for": sorted({names[i] for i in r.label.tolist()}),
    }
    return arrays, measured


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Smallest changes suffice, the chosen class is reached, and rubbish is confidently wrong."""
    config, smallest, r = FIGURE.config, measured["smallest changes"], measured["rubbish"]
    limit, confidence = config["robustness"], config["confidence"]
    robustness = smallest["robustness: mean norm of the change over the image's"]
    confident = sum(p >= confidence for p in r["probability"])
    always = smallest["fooled, %"] == 100 and robustness < limit
    believed = r["images"] == r["taken for their class"] and confident > r["images"] / 2
    return verdict(
        {
            f"smallest changes always succeed, below {limit} of the image's norm": always,
            "every example reaches the chosen class": all(measured["examples"]["chosen"]["fooled"]),
            f"rubbish reaches its class, mostly with a probability of {confidence}": believed,
        }
    )


def draw(result: Result) -> dict[str, Any]:
    a, columns, rows = result.arrays, 4, 2
    figure = new_page(7.6)
    grid = figure.subplots(rows + 1, columns)
    blank(grid)
    for i, panels in zip(range(len(a["x"])), grid[:rows], strict=False):
        draw_attacks(panels, a, i)
    for panel, i in zip(grid[-1], range(len(a["rubbish.goal"])), strict=False):
        show(panel, photograph(a["rubbish.pixels"][i : i + 1])[0])
        caption(panel, f"optimized from noise:\n{prediction(a, 'rubbish', i)}")
    smallest = result.measured["smallest changes"]
    set_finding(
        figure,
        f"The smallest change that alters the prediction has a root mean square of "
        f"{smallest['change of a pixel, root mean square, median, gray levels']:.2f} of 255 gray "
        f"levels (median of {result.n} images)",
    )
    return {"fooling.jpg": figure}
