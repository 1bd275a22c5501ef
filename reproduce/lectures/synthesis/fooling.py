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
from reproduce.lectures.sampling import spread_indices
from reproduce.paper.boxed_images import choose_images
from zfnet.data.images import to_pixels
from zfnet.plot import new_figure, photograph, projection_image, show
from zfnet.synthesis.adversarial import deepfool, fgsm, pgd, rubbish

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


def compute(ctx: Context) -> Result:
    config, names = FIGURE.config, ctx.model.classes
    _, shown, true, _ = zip(*choose_images(ctx)[: config["shown"]], strict=True)
    x = torch.cat(shown)
    target = (
        ctx.model.wnids.index(config["goal"])
        if config["goal"] in ctx.model.wnids
        else len(names) - 1
    )
    attacks = {
        "smallest": deepfool(ctx.model, x),
        "one step": fgsm(ctx.model, x, epsilon=config["epsilon"]),
        "chosen": pgd(ctx.model, x, epsilon=config["aimed"], steps=config["steps"], target=target),
    }
    probability, label = ctx.model(x).softmax(1).max(1)
    arrays = {"x": x.cpu().numpy(), "true": np.array(true), "label": label.cpu().numpy()}
    arrays["probability"] = probability.cpu().numpy()
    for attack, a in attacks.items():
        arrays |= {
            f"{attack}.{key}": getattr(a, field).cpu().numpy() for key, field in FIELDS.items()
        }
    chosen = spread_indices(ctx, config["images"])
    x_many = ctx.images.batch(chosen).to(ctx.device)
    s = deepfool(ctx.model, x_many, progress=ctx.progress)
    length = 255 * to_pixels(x_many).flatten(1).norm(dim=1)
    arrays |= {
        "robustness": (s.norm / length).cpu().numpy(),
        "robust.fooled": s.success.cpu().numpy(),
    }
    targets = np.linspace(0, len(names) - 1, min(len(names), config["rubbish"])).round().astype(int)
    generator = torch.Generator().manual_seed(FIGURE.seed)
    noise = config["noise"] * torch.randn(len(targets), *x.shape[1:], generator=generator)
    r = rubbish(
        ctx.model,
        noise.to(ctx.device),
        targets.tolist(),
        steps=config["climbing"],
        rate=config["rate"],
        progress=ctx.progress,
    )
    arrays |= {
        f"rubbish.{key}": getattr(r, field).cpu().numpy() for key, field in FIELDS.items()
    } | {"names": np.array(names)}
    arrays |= {
        "chosen.goal": np.array(target),
        "rubbish.goal": targets,
        "noise.predicted": r.label.cpu().numpy(),
    }
    levels = s.linf[s.success].cpu()
    measured = {
        "smallest changes": {
            "images": len(chosen),
            "fooled, %": 100 * float(s.success.float().mean()),
            "robustness: mean norm of the change over the image's": float((s.norm / length).mean()),
            "largest change of a pixel, median, grey levels": float(levels.median()),
            "change of a pixel, root mean square, median, grey levels": float(
                (s.norm / x_many[0].numel() ** 0.5).median()
            ),
        },
        "examples": {
            attack: {
                "fooled": a.success.tolist(),
                "taken for": [names[i] for i in a.predicted.tolist()],
            }
            for attack, a in attacks.items()
        },
        "rubbish": {
            "images": len(targets),
            "taken for their class": int(r.success.sum()),
            "probability": r.probability.tolist(),
            "the noise was taken for": sorted({names[i] for i in r.label.tolist()}),
        },
    }
    claims, outcome = judge(measured)
    note = (
        "Images of Fig. 7. An image that is misclassified may change to its true class. The "
        "smallest change is so in the L2 norm: single pixels may change more than by one step of "
        f"{config['epsilon']:g} gray level, which changes all. The chosen class is "
        f"{names[target]}, within {config['aimed']:g} levels. Changes are shown on gray, each "
        "with its own contrast. Robustness is over images evenly spread over the corpus. Rubbish "
        "starts from noise, whose own prediction is recorded too."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


FIELDS = {  # names of arrays in the record -> fields of an attack's result
    "pixels": "pixels",
    "predicted": "predicted",
    "probability": "probability",
    "fooled": "success",
    "largest": "linf",
    "norm": "norm",
}


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
    a, names = result.arrays, result.arrays["names"]
    columns, rows = 5, len(a["x"]) + 1
    rubbish_rows = (
        np.linspace(0, len(a["rubbish.goal"]) - 1, min(columns, len(a["rubbish.goal"])))
        .round()
        .astype(int)
    )
    figure = new_figure(1.96 * columns, 2.32 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.title.set_fontsize(7.5)
    for i in range(len(a["x"])):
        predicted = names[a["label"][i]]
        title_text = (
            predicted
            if a["label"][i] == a["true"][i]
            else f"{names[a['true'][i]]}, predicted: {predicted}"
        )
        show(
            grid[i, 0],
            photograph(a["x"][i : i + 1])[0],
            f"{title_text}:\nprobability {a['probability'][i]:.2f}",
        )
        change = a["smallest.pixels"][i : i + 1] - a["x"][i : i + 1]
        text = (
            f"smallest change (L2), amplified:\nat most {a['smallest.largest'][i]:.1f} gray levels"
        )
        show(grid[i, 1], projection_image(change)[0], text)
        for axes, attack in zip(grid[i, 2:], ("smallest", "one step", "chosen"), strict=True):
            title = {
                "smallest": "with it",
                "one step": f"one step of {a['one step.largest'][i]:.0f} gray level",
                "chosen": f"to {names[a['chosen.goal']]}, by {a['chosen.largest'][i]:.0f} levels",
            }
            show(
                axes,
                photograph(a[f"{attack}.pixels"][i : i + 1])[0],
                f"{title[attack]}:\n{prediction(a, attack, i, names)}",
            )
    for axes, i in zip(grid[-1], rubbish_rows, strict=False):
        text = f"rubbish:\n{prediction(a, 'rubbish', i, names)}"
        show(axes, photograph(a["rubbish.pixels"][i : i + 1])[0], text)
    return {"fooling.jpg": figure}


def prediction(a: dict, attack: str, i: int, names: np.ndarray) -> str:
    """The predicted class of an adversarial image, and its probability."""
    return f"{names[a[f'{attack}.predicted'][i]]}, {a[f'{attack}.probability'][i]:.2f}"
