"""DeepDream: a layer's activations amplified in a photograph.

Mordvintsev, Olah and Tyka (2015). No class and no feature is chosen: the activations of a layer are
increased, at several sizes of the image. To test that the dream amplifies this layer, and not
only contrast, the activations of all layers are measured in all dreams, and in the photograph
with more contrast. The mean frequency of the change measures the size of the drawn patterns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.lectures.sampling import spread_indices
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.base import clip
from zfnet.synthesis.dream import dream

FIGURE = Figure(
    id="dreams",
    title="DeepDream: amplified activations of each layer",
    claim="Each layer's activations are amplified more by its own dream than by the dream of any "
    "other layer, and more than by contrast.",
    inputs=("model", "images"),
    seed=37,
    time_budget=300,
    config={
        "photographs": ["astronaut", "coffee", "rocket"],
        "images": 20,
        "layers": ["conv1", "conv2", "conv3", "conv4", "conv5"],
        "octaves": 4,
        "zoom": 1.4,
        "steps": 10,
        "rate": 0.03,
        "jitter": 16,
        "contrast": 1.5,
    },
    manual=True,
    network="chain",
)
CONTRAST = "more contrast"


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    shown = torch.cat([zfnet.preprocess(zfnet.photograph(name)) for name in config["photographs"]])
    x = torch.cat([shown, ctx.images.batch(spread_indices(ctx, config["images"]))]).to(ctx.device)
    options = {key: config[key] for key in ("octaves", "zoom", "steps", "rate", "jitter")}
    arrays: dict[str, np.ndarray] = {"photographs": shown.numpy()}
    before, label = energies(ctx.model, x), predict_labels(ctx.model, x)
    gray = x.mean((2, 3), keepdim=True)
    amplified = {CONTRAST: energies(ctx.model, clip(gray + config["contrast"] * (x - gray)))}
    frequencies, relabeled = {}, {}
    for layer in config["layers"]:
        generator = torch.Generator().manual_seed(FIGURE.seed)
        pixels = dream(
            ctx.model, x, layer, **options, generator=generator, progress=ctx.progress
        ).pixels
        arrays[f"{layer}.pixels"] = pixels[: len(shown)].cpu().numpy()
        amplified[layer] = energies(ctx.model, pixels)
        frequencies[layer] = mean_frequency(pixels - x)
        relabeled[layer] = int((predict_labels(ctx.model, pixels) != label).sum())

    def mean(values: np.ndarray) -> list[float]:
        return mean_interval(values.astype(float), seed=FIGURE.seed)

    factors = {
        dream_of: {layer: values[layer] / before[layer] for layer in config["layers"]}
        for dream_of, values in amplified.items()
    }
    measured = {
        "times the mean squared activation, by dream and layer": {
            dream_of: {layer: float(values.mean()) for layer, values in row.items()}
            for dream_of, row in factors.items()
        },
        "of the layer dreamt of": {
            layer: mean(factors[layer][layer]) for layer in config["layers"]
        },
        "mean frequency of the change, cycles a pixel": {
            layer: mean(values) for layer, values in frequencies.items()
        },
        "images taken for another class then": relabeled,
    }
    claims, outcome = verdict(
        {
            f"{layer} is amplified most by its own dream, in every image": all(
                bool((factors[layer][layer] > factors[dream_of][layer]).all())
                for dream_of in factors
                if dream_of != layer
            )
            for layer in config["layers"]
        }
    )
    note = (
        f"{len(shown)} photographs of scikit-image (shown) and {len(x) - len(shown)} images of "
        f"the corpus; means over them, some with 95 % intervals. {config['octaves']} sizes with a "
        f"factor of {config['zoom']}, {config['steps']} steps each. {CONTRAST.capitalize()}: "
        f"{config['contrast']} times that of the image. Frequencies are weighted by the energy of "
        "the change."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(x), note=note)


def energies(model, x: torch.Tensor) -> dict[str, np.ndarray]:
    """The mean squared activation of each layer by image, (N,) each."""
    parts = [zfnet.trace(model, part, until=FIGURE.config["layers"][-1]) for part in x.split(20)]
    return {
        layer: torch.cat([t[layer].square().mean((1, 2, 3)) for t in parts]).cpu().numpy()
        for layer in FIGURE.config["layers"]
    }


def predict_labels(model, x: torch.Tensor) -> torch.Tensor:
    """The predicted classes (N,), in chunks."""
    return torch.cat([model(part).argmax(1) for part in x.split(20)])


def mean_frequency(change: torch.Tensor) -> np.ndarray:
    """The mean spatial frequency, weighted by energy.

    Args:
        change: Images (N, C, H, W).

    Returns:
        Cycles per pixel (N,), from 0 to 0.71.
    """
    energy = torch.fft.fft2(change.double()).abs().square().sum(1)
    rows, columns = (
        torch.fft.fftfreq(n, device=change.device, dtype=torch.float64) for n in change.shape[2:]
    )
    frequency = torch.hypot(rows[:, None], columns)
    return ((energy * frequency).sum((1, 2)) / energy.sum((1, 2))).cpu().numpy()


def draw(result: Result) -> dict[str, Any]:
    a, config = result.arrays, FIGURE.config
    columns = ["photographs", *(f"{layer}.pixels" for layer in config["layers"])]
    figure = new_figure(1.9 * len(columns), 2.0 * len(a["photographs"]) + 0.2)
    grid = figure.subplots(len(a["photographs"]), len(columns), squeeze=False)
    for row, panels in enumerate(grid):
        for panel, name in zip(panels, columns, strict=True):
            title = "photograph" if name == "photographs" else f"layer {name[4]}"
            show(panel, photograph(a[name][row : row + 1])[0], title if row == 0 else "")
    return {"dreams.jpg": figure}
