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
from reproduce.core.page import caption, new_page, set_finding
from reproduce.lectures.sampling import spread_indices
from reproduce.lectures.synthesis.frequency import mean_frequency
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import photograph, show
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
    version=2,
    manual=True,
    network="layers",
)
CONTRAST = "more contrast"
FREQUENCY = "mean frequency of the change, cycles per pixel"
AMPLIFIED = "of the layer dreamt of"


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
    factors = {
        dream_of: {layer: values[layer] / before[layer] for layer in config["layers"]}
        for dream_of, values in amplified.items()
    }
    measured = measure(factors, frequencies) | {"images taken for another class then": relabeled}
    claims, outcome = judge(factors)
    note = (
        f"{len(shown)} photographs of scikit-image and {len(x) - len(shown)} images of the "
        f"corpus; means over them, some with 95 % intervals. {config['octaves']} sizes with a "
        f"factor of {config['zoom']}, {config['steps']} steps each. {CONTRAST.capitalize()}: "
        f"{config['contrast']} times that of the image. Frequencies are weighted by the energy of "
        "the change."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(x), note=note)


def measure(
    factors: dict[str, dict[str, np.ndarray]], frequencies: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Means over images.

    Args:
        factors: The amplification of each layer (N,) by the dream.
        frequencies: The mean frequency of the change (N,) by the dream.
    """

    def mean(values: np.ndarray) -> list[float]:
        return mean_interval(values.astype(float), seed=FIGURE.seed)

    return {
        "times the mean squared activation, by dream and layer": {
            dream_of: {layer: float(values.mean()) for layer, values in row.items()}
            for dream_of, row in factors.items()
        },
        AMPLIFIED: {layer: mean(factors[layer][layer]) for layer in frequencies},
        FREQUENCY: {layer: mean(values) for layer, values in frequencies.items()},
    }


def judge(factors: dict[str, dict[str, np.ndarray]]) -> tuple[dict[str, str], str]:
    """Each layer is amplified most by its own dream, in every image."""
    return verdict(
        {
            f"{layer} is amplified most by its own dream, in every image": all(
                bool((factors[layer][layer] > row[layer]).all())
                for dream_of, row in factors.items()
                if dream_of != layer
            )
            for layer in FIGURE.config["layers"]
        }
    )


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


def draw(result: Result) -> dict[str, Any]:
    a, layers = result.arrays, FIGURE.config["layers"]
    columns = {"photographs": "photograph"}
    columns |= {f"{layer}.pixels": f"dream of layer {layer[4]}" for layer in layers}
    shown = min(len(a["photographs"]), 12 // len(columns))
    figure = new_page(1.65 * shown + 0.5)
    grid = figure.subplots(shown, len(columns), squeeze=False)
    for row, panels in enumerate(grid):
        for panel, (name, title) in zip(panels, columns.items(), strict=True):
            show(panel, photograph(a[name][row : row + 1])[0])
            caption(panel, title)
    frequency = result.measured[FREQUENCY]
    first, last = frequency[layers[0]][0], frequency[layers[-1]][0]
    times = {layer: row[0] for layer, row in result.measured[AMPLIFIED].items()}
    set_finding(
        figure,
        f"A dream multiplies the mean squared activation of its layer by {min(times.values()):.1f} "
        f"to {max(times.values()):.1f}; the mean frequency of the change is {first:.2f} cycles per "
        f"pixel for {layers[0]} and {last:.2f} for {layers[-1]}",
    )
    return {"dreams.jpg": figure}
