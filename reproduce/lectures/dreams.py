"""DeepDream: what each layer sees in a photograph, drawn into it.

Mordvintsev, Olah & Tyka 2015. No class and no feature is chosen: whatever the layer's maps say to the photograph is made
louder, at several sizes. Of deeper networks it is said that low layers draw strokes, and high ones larger and more intricate
things. How large is what a layer draws? The change's energy by frequency says so in a number.
"""

import numpy as np
import torch

import zfnet
from reproduce.figure import Figure, Result
from reproduce.lectures.shared import spread, verdict
from zfnet.methods.dream import dream
from zfnet.methods.intervals import mean_interval
from zfnet.plot import new_figure, photograph, show

FIGURE = Figure(
    id="dreams",
    title="DeepDream: the layers' activations amplified in photographs",
    claim="Every layer's activations can be amplified many times in any photograph, by strokes that are the coarser, the "
    "higher the layer.",
    inputs=("model", "images"),
    seed=37,
    budget=300,
    config={
        "photographs": ["astronaut", "coffee", "rocket"], "images": 20, "layers": ["conv1", "conv2", "conv3", "conv4", "conv5"],
        "octaves": 4, "zoom": 1.4, "steps": 10, "rate": 0.03, "jitter": 16, "times": 2,
    },
    files=("shared.py",),
    alone=True,
)  # fmt: skip


def compute(ctx) -> Result:
    config = FIGURE.config
    shown = torch.cat([zfnet.preprocess(zfnet.photograph(name)) for name in config["photographs"]])
    x = torch.cat([shown, ctx.images.batch(spread(ctx, config["images"]))]).to(ctx.device)
    options = {key: config[key] for key in ("octaves", "zoom", "steps", "rate", "jitter")}
    arrays: dict[str, np.ndarray] = {"photographs": shown.numpy()}
    times, cycles, changed = {}, {}, {}
    label = labels(ctx.model, x)
    for layer in config["layers"]:
        generator = torch.Generator().manual_seed(FIGURE.seed)
        d = dream(ctx.model, x, layer, **options, generator=generator, progress=ctx.progress)
        arrays[f"{layer}.pixels"] = d.pixels[: len(shown)].cpu().numpy()
        times[layer] = (d.after / d.before).cpu().numpy()
        cycles[layer] = mean_frequency(d.pixels - x)
        changed[layer] = int((labels(ctx.model, d.pixels) != label).sum())

    def mean(values: np.ndarray) -> list[float]:
        return mean_interval(values.astype(float), seed=FIGURE.seed)

    first, *_, last = config["layers"]
    coarser = mean(cycles[first] - cycles[last])
    measured = {
        "times the layer's mean squared activation": {layer: mean(values) for layer, values in times.items()},
        "mean frequency of the change, cycles a pixel": {layer: mean(values) for layer, values in cycles.items()},
        f"{first} less {last}, cycles a pixel": coarser,
        "images taken for another class then": changed,
    }
    much = f"is amplified {config['times']} times or more in every image"
    held = {f"{layer} {much}": bool(values.min() >= config["times"]) for layer, values in times.items()}
    claims, found = verdict(held | {f"what {last} draws is coarser than what {first} draws": coarser[1] > 0})
    note = (
        f"{len(shown)} photographs of scikit-image, which the picture shows, and {len(x) - len(shown)} images of the corpus; "
        f"means with 95 % intervals over them. {config['octaves']} sizes, each {config['zoom']} times the one before, "
        f"{config['steps']} steps at each. Frequencies are weighted by the energy of what was changed."
    )
    return Result(arrays, measured | {"claims": claims}, found, n=len(x), note=note)


def labels(model, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(20)])


def mean_frequency(change: torch.Tensor) -> np.ndarray:
    """The mean frequency of images (N, C, H, W), weighted by energy, in cycles a pixel: (N,) from 0 to 0.71."""
    energy = torch.fft.fft2(change.double()).abs().square().sum(1)
    rows, columns = (torch.fft.fftfreq(n, device=change.device, dtype=torch.float64) for n in change.shape[2:])
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
