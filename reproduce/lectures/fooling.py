"""Four ways to fool the network: the smallest change, one step, steps to a chosen class, and images of nothing.

For each image: the network's decision; the smallest change in the L2 norm that alters it (DeepFool, Moosavi-Dezfooli et al.
2016), which is drawn enlarged; one step of FGSM; and iterated steps to a class far from it. Below,
images of nothing: noise that has climbed a class's probability with no regulariser (Nguyen et al. 2015) and is taken for
the class with confidence. The smallest changes are measured over more images, against the length of the image as the paper
does: a robustness of 0.01 says that a hundredth of the image's norm suffices.
"""

import numpy as np
import torch

from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import spread
from reproduce.paper.boxed_images import choose_images
from zfnet.data.images import to_pixels
from zfnet.plot import new_figure, photograph, projection_image, show
from zfnet.synthesis.adversarial import fgsm, pgd, rubbish
from zfnet.synthesis.deepfool import deepfool

FIGURE = Figure(
    id="fooling",
    title="Fooling the network: smallest changes, chosen classes, rubbish",
    claim="Changes that are short beside the image alter the class, a few grey levels make it a chosen one; images that "
    "have climbed from noise are taken for a class with confidence.",
    inputs=("model", "images"),
    seed=29,
    time_budget=300,
    config={
        "shown": 3, "images": 60, "epsilon": 1.0, "goal": "n03063599", "aimed": 8.0, "steps": 20, "rubbish": 10, "noise": 0.3,
        "climbing": 80, "rate": 0.03, "robustness": 0.02, "confidence": 0.9,
    },
    files=("../paper/fig7_boxes.yaml",),
    manual=True,
)  # fmt: skip


def compute(ctx) -> Result:
    config, names = FIGURE.config, ctx.model.classes
    _, shown, true, _ = zip(*choose_images(ctx)[: config["shown"]], strict=True)
    x = torch.cat(shown)
    goal = (
        ctx.model.wnids.index(config["goal"])
        if config["goal"] in ctx.model.wnids
        else len(names) - 1
    )
    ways = {
        "smallest": deepfool(ctx.model, x),
        "one step": fgsm(ctx.model, x, epsilon=config["epsilon"]),
        "chosen": pgd(ctx.model, x, epsilon=config["aimed"], steps=config["steps"], target=goal),
    }
    probability, label = ctx.model(x).softmax(1).max(1)
    arrays = {"x": x.cpu().numpy(), "true": np.array(true), "label": label.cpu().numpy()}
    arrays["probability"] = probability.cpu().numpy()
    for way, a in ways.items():
        arrays |= {f"{way}.{key}": getattr(a, field).cpu().numpy() for key, field in FIELDS.items()}
    chosen = spread(ctx, config["images"])
    many = ctx.images.batch(chosen).to(ctx.device)
    s = deepfool(ctx.model, many, progress=ctx.progress)
    length = 255 * to_pixels(many).flatten(1).norm(dim=1)
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
        "chosen.goal": np.array(goal),
        "rubbish.goal": targets,
        "noise.predicted": r.label.cpu().numpy(),
    }
    levels = s.linf[s.success].cpu()
    measured = {
        "smallest changes": {
            "images": len(chosen), "fooled, %": 100 * float(s.success.float().mean()),
            "robustness: mean norm of the change over the image's": float((s.norm / length).mean()),
            "largest change of a pixel, median, grey levels": float(levels.median()),
            "change of a pixel, root mean square, median, grey levels": float((s.norm / many[0].numel() ** 0.5).median()),
        },
        "examples": {
            way: {"fooled": a.success.tolist(), "taken for": [names[i] for i in a.predicted.tolist()]}
            for way, a in ways.items()
        },
        "rubbish": {
            "images": len(targets), "taken for their class": int(r.success.sum()), "probability": r.probability.tolist(),
            "the noise was taken for": sorted({names[i] for i in r.label.tolist()}),
        },
    }  # fmt: skip
    claims, found = judge(measured)
    note = (
        f"The images of Fig. 7; of one that the network mistakes, another class may be the true one. The smallest change is so "
        f"in length (L2): single pixels may change by more than in one step of {config['epsilon']:g} grey level, which changes "
        f"all. Iterated to {names[goal]} within {config['aimed']:g}. Changes are drawn on grey, each with its own contrast. "
        "Robustness is over images spread over the corpus. Rubbish has climbed from noise, whose own label is recorded too."
    )
    return Result(arrays, measured | {"claims": claims}, found, n=len(chosen), note=note)


FIELDS = {  # names of arrays in the record -> fields of an attack's result
    "pixels": "pixels",
    "predicted": "predicted",
    "probability": "probability",
    "fooled": "success",
    "largest": "linf",
    "norm": "norm",
}


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Whether smallest changes are small and succeed, whether the chosen class is reached, and whether rubbish is believed."""
    config, few, r = FIGURE.config, measured["smallest changes"], measured["rubbish"]
    robustness = few["robustness: mean norm of the change over the image's"]
    sure = sum(p >= config["confidence"] for p in r["probability"])
    return verdict(
        {
            f"smallest changes alter every decision at less than {config['robustness']} of the image's norm": few[
                "fooled, %"
            ]
            == 100
            and robustness < config["robustness"],
            "every example is taken for the chosen class": all(
                measured["examples"]["chosen"]["fooled"]
            ),
            f"all rubbish is taken for its class, most of it with a probability of {config['confidence']} or more": r[
                "images"
            ]
            == r["taken for their class"]
            and sure > r["images"] / 2,
        }
    )


def draw(result: Result):
    a, names = result.arrays, result.arrays["names"]
    columns, rows = 5, len(a["x"]) + 1
    drawn = (
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
        taken = names[a["label"][i]]
        what = (
            taken if a["label"][i] == a["true"][i] else f"{names[a['true'][i]]}, taken for {taken}"
        )
        show(
            grid[i, 0],
            photograph(a["x"][i : i + 1])[0],
            f"{what}:\nprobability {a['probability'][i]:.2f}",
        )
        change = a["smallest.pixels"][i : i + 1] - a["x"][i : i + 1]
        text = (
            f"shortest change (L2), enlarged:\nat most {a['smallest.largest'][i]:.1f} grey levels"
        )
        show(grid[i, 1], projection_image(change)[0], text)
        for axes, way in zip(grid[i, 2:], ("smallest", "one step", "chosen"), strict=True):
            title = {
                "smallest": "with it",
                "one step": f"one step of {a['one step.largest'][i]:.0f} grey level",
                "chosen": f"to {names[a['chosen.goal']]}, by {a['chosen.largest'][i]:.0f} levels",
            }
            show(
                axes,
                photograph(a[f"{way}.pixels"][i : i + 1])[0],
                f"{title[way]}:\n{said(a, way, i, names)}",
            )
    for axes, i in zip(grid[-1], drawn, strict=False):
        text = f"rubbish:\n{said(a, 'rubbish', i, names)}"
        show(axes, photograph(a["rubbish.pixels"][i : i + 1])[0], text)
    return {"fooling.jpg": figure}


def said(a: dict, way: str, i: int, names: np.ndarray) -> str:
    return f"{names[a[f'{way}.predicted'][i]]}, {a[f'{way}.probability'][i]:.2f}"
