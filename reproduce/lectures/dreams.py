"""DeepDream: what each layer sees in a photograph, drawn into it.

Mordvintsev, Olah & Tyka 2015. No class and no feature is chosen: whatever the layer's maps say to the photograph is made
louder, at several sizes. Is it that layer which is amplified, and not just the photograph's contrast? Every layer is asked of
every dream, and of the photograph with more contrast. The change's mean frequency says how large the things are that it draws.
"""

import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import spread
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.base import clip
from zfnet.synthesis.dream import dream

FIGURE = Figure(
    id="dreams",
    title="DeepDream: the layers' activations amplified in photographs",
    claim="Each layer's activations are amplified more by its own dream than by any other layer's, and than by more contrast.",
    inputs=("model", "images"),
    seed=37,
    time_budget=300,
    config={
        "photographs": ["astronaut", "coffee", "rocket"], "images": 20, "layers": ["conv1", "conv2", "conv3", "conv4", "conv5"],
        "octaves": 4, "zoom": 1.4, "steps": 10, "rate": 0.03, "jitter": 16, "contrast": 1.5,
    },
    manual=True,
    network="chain",
)  # fmt: skip
CONTRAST = "more contrast"


def compute(ctx) -> Result:
    config = FIGURE.config
    shown = torch.cat([zfnet.preprocess(zfnet.photograph(name)) for name in config["photographs"]])
    x = torch.cat([shown, ctx.images.batch(spread(ctx, config["images"]))]).to(ctx.device)
    options = {key: config[key] for key in ("octaves", "zoom", "steps", "rate", "jitter")}
    arrays: dict[str, np.ndarray] = {"photographs": shown.numpy()}
    said, label = energies(ctx.model, x), labels(ctx.model, x)
    grey = x.mean((2, 3), keepdim=True)
    louder = {CONTRAST: energies(ctx.model, clip(grey + config["contrast"] * (x - grey)))}
    cycles, changed = {}, {}
    for layer in config["layers"]:
        generator = torch.Generator().manual_seed(FIGURE.seed)
        pixels = dream(
            ctx.model, x, layer, **options, generator=generator, progress=ctx.progress
        ).pixels
        arrays[f"{layer}.pixels"] = pixels[: len(shown)].cpu().numpy()
        louder[layer] = energies(ctx.model, pixels)
        cycles[layer] = mean_frequency(pixels - x)
        changed[layer] = int((labels(ctx.model, pixels) != label).sum())

    def mean(values: np.ndarray) -> list[float]:
        return mean_interval(values.astype(float), seed=FIGURE.seed)

    times = {
        of: {layer: values[layer] / said[layer] for layer in config["layers"]}
        for of, values in louder.items()
    }
    measured = {
        "times the mean squared activation, by dream and layer": {
            of: {layer: float(values.mean()) for layer, values in row.items()}
            for of, row in times.items()
        },
        "of the layer dreamt of": {layer: mean(times[layer][layer]) for layer in config["layers"]},
        "mean frequency of the change, cycles a pixel": {
            layer: mean(values) for layer, values in cycles.items()
        },
        "images taken for another class then": changed,
    }
    claims, found = verdict(
        {
            f"{layer} is amplified most by its own dream, in every image": all(
                bool((times[layer][layer] > times[of][layer]).all()) for of in times if of != layer
            )
            for layer in config["layers"]
        }
    )
    note = (
        f"{len(shown)} photographs of scikit-image, which the picture shows, and {len(x) - len(shown)} images of the corpus; "
        f"means over them, some with 95 % intervals. {config['octaves']} sizes, each {config['zoom']} times the one before, "
        f"{config['steps']} steps at each. {CONTRAST.capitalize()}: {config['contrast']} times that of the image. Frequencies "
        "are weighted by the energy of what was changed."
    )
    return Result(arrays, measured | {"claims": claims}, found, n=len(x), note=note)


def energies(model, x: torch.Tensor) -> dict[str, np.ndarray]:
    """The mean squared activation of each layer, by image: (N,) each."""
    parts = [zfnet.trace(model, part, until=FIGURE.config["layers"][-1]) for part in x.split(20)]
    return {
        layer: torch.cat([t[layer].square().mean((1, 2, 3)) for t in parts]).cpu().numpy()
        for layer in FIGURE.config["layers"]
    }


def labels(model, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(20)])


def mean_frequency(change: torch.Tensor) -> np.ndarray:
    """The mean frequency of images (N, C, H, W), weighted by energy, in cycles a pixel: (N,) from 0 to 0.71."""
    energy = torch.fft.fft2(change.double()).abs().square().sum(1)
    rows, columns = (
        torch.fft.fftfreq(n, device=change.device, dtype=torch.float64) for n in change.shape[2:]
    )
    frequency = torch.hypot(rows[:, None], columns)
    return ((energy * frequency).sum((1, 2)) / energy.sum((1, 2))).cpu().numpy()


def draw(result: Result):
    a, config = result.arrays, FIGURE.config
    columns = ["photographs", *(f"{layer}.pixels" for layer in config["layers"])]
    figure = new_figure(1.9 * len(columns), 2.0 * len(a["photographs"]) + 0.2)
    grid = figure.subplots(len(a["photographs"]), len(columns), squeeze=False)
    for row, panels in enumerate(grid):
        for panel, name in zip(panels, columns, strict=True):
            title = "photograph" if name == "photographs" else f"layer {name[4]}"
            show(panel, photograph(a[name][row : row + 1])[0], title if row == 0 else "")
    return {"dreams.jpg": figure}
