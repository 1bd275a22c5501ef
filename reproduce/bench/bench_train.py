"""How fast training is, what of it is data, and the same of torchvision's AlexNet behind torchvision's own pipeline.

All loops run in one process, in turn, after a warm-up, on the same photographs, device, precision and threads; a ratio is the
median over repetitions, with the least and the most. Other people's AlexNet: 9,319 images/s on a V100, 16,487 on an A100.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

import zfnet
from reproduce.bench.timing import race, spread
from reproduce.figure import REPOSITORY, Figure, Result
from reproduce.gallery import number
from zfnet.config import Config, load_config
from zfnet.data.cache import Images
from zfnet.data.feed import Feed
from zfnet.data.images import MEAN, STD
from zfnet.plot import LINES, new_figure
from zfnet.train import augment, new_model, new_optimizer, runner, step

FIGURE = Figure(
    id="bench_train",
    title="Speed of training",
    claim="Reading and augmenting costs hardly more than nothing: a step on photographs is as fast as one on random tensors.",
    inputs=("images", "device"),
    seed=12,
    budget=600,
    alone=True,
    files=("timing.py", "../../configs/imagenet65k.yaml"),
    config={
        "cpu": {"batch": 16, "size": 128, "side": 146, "steps": 8, "repeats": 25, "precision": "float32"},
        "cuda": {"batch": 256, "size": 224, "side": 256, "steps": 30, "repeats": 5, "precision": "bfloat16"},
        "goals": {"cpu": {"photographs over random tensors": 0.9}, "cuda": {"photographs, images/s": 30_000}},
        "peak, TFLOP/s": {"H100": 989, "H200": 989, "A100": 312},  # bfloat16 without sparsity, of the makers' data sheets
    },
)
WHOLE, BARE, NOISE = "photographs", "random tensors", "random images, augmented"
TORCHVISION = "torchvision's AlexNet"
SHARE = f"{WHOLE} over {BARE}"
RATIOS = {  # how many times as fast the first loop is as the second
    SHARE: (WHOLE, BARE),
    f"{TORCHVISION}, {SHARE}": (f"{TORCHVISION}, {WHOLE}", f"{TORCHVISION}, {BARE}"),
    f"ours over {TORCHVISION}, {WHOLE}": (WHOLE, f"{TORCHVISION}, {WHOLE}"),
}


def compute(ctx) -> Result:
    kind = "cuda" if ctx.device.startswith("cuda") else "cpu"
    of, device = FIGURE.config[kind], torch.device(ctx.device)
    config = load_config(REPOSITORY / "configs" / "imagenet65k.yaml")
    config = replace(config, precision=of["precision"], model=replace(config.model, size=of["size"]))
    count = of["batch"] * of["steps"]
    chosen = np.resize(np.linspace(0, len(ctx.images) - 1, min(count, len(ctx.images))).astype(int), count)
    images = kept_at(ctx.images.subset(chosen), of["side"])
    with torch.enable_grad(), tempfile.TemporaryDirectory() as folder:
        loops = ours(config, images, of, device) | theirs(images, of, device, Path(folder))
        if kind == "cuda":
            compiled = ours(replace(config, compile=True), images, of, device)
            loops |= {f"{name}, compiled": compiled[name] for name in (WHOLE, BARE)}
        timings = race(loops, of["repeats"], ctx.device)
    measured: dict = {f"{name}, images/s": spread([count / s for s in timing.seconds]) for name, timing in timings.items()}
    for name, (one, other) in RATIOS.items():
        measured[name] = spread([b / a for a, b in zip(timings[one].seconds, timings[other].seconds, strict=True)])
    measured["share of a step that is data"] = 1 - measured[SHARE][0]
    if kind == "cuda":
        measured |= roofline(config, measured, torch.cuda.get_device_name(device))
    goals = {
        f"{what}: at least {least:,}": "reached" if measured[what][0] >= least else "not reached"
        for what, least in FIGURE.config["goals"][kind].items()
    }
    measured["goals"] = goals
    note = (
        f"ZFNet by configs/imagenet65k.yaml, batches of {of['batch']} at {of['size']} pixels, {of['precision']}, "
        f"{torch.get_num_threads()} threads; median, least and most of {of['repeats']} repetitions of {of['steps']} steps in "
        f"turn. torchvision: an ImageFolder of the same squares of {of['side']} pixels as JPEG, random resized crops, a "
        f"DataLoader with {os.cpu_count()} workers, which go on from one repetition to the next."
    )
    reached = [said == "reached" for said in goals.values()]
    return Result({}, measured, "reproduced" if all(reached) else "differs", n=of["repeats"], note=note)


def kept_at(images: Images, side: int) -> Images:
    """The images as they would be kept at another side, with labels."""
    raw = images.raw(np.arange(len(images))).permute(0, 3, 1, 2).float()
    pixels = F.interpolate(raw, (side, side), mode="bilinear", antialias=True).round().byte().permute(0, 2, 3, 1).contiguous()
    return replace(images, pixels=pixels.numpy(), labels=images.labels.clip(0), rows=None, groups=None, size=side)


def ours(config: Config, images: Images, of: dict, device: torch.device) -> dict[str, Callable[[], None]]:
    """Our loops, each over all images once: the whole step, on noise, on random tensors, and its parts."""
    torch.manual_seed(FIGURE.seed)
    model = new_model(config, images).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer, run = new_optimizer(model, config.optim), runner(model, config)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4  # speed does not depend on it, and nothing overflows
    parts, generator = np.arange(len(images)).reshape(-1, of["batch"]), torch.Generator().manual_seed(FIGURE.seed)
    feed = Feed(images, device, keep=True)
    noise = torch.randint(0, 256, (of["batch"], of["side"], of["side"], 3), dtype=torch.uint8, generator=generator).to(device)
    x = torch.randn(of["batch"], 3, of["size"], of["size"], generator=generator).to(device)
    x, y = x.contiguous(memory_format=torch.channels_last), torch.zeros(of["batch"], dtype=torch.int64, device=device)

    def passed(x: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            return F.cross_entropy(run(x).float(), y)

    def photographs() -> None:
        for raw, labels in feed.batches(parts):
            step(model, run, optimizer, augment(raw, of["size"], config.augment, generator), labels, config)

    def augmented() -> None:
        for raw, _ in feed.batches(parts):
            augment(raw, of["size"], config.augment, generator)

    @torch.no_grad()
    def forward() -> None:
        for _ in parts:
            passed(x)

    def gradients() -> None:
        for _ in parts:
            model.zero_grad()
            passed(x).backward()

    def on_noise() -> None:
        for _ in parts:
            step(model, run, optimizer, augment(noise, of["size"], config.augment, generator), y, config)

    def on_tensors() -> None:
        for _ in parts:
            step(model, run, optimizer, x, y, config)

    parts_of_it = {"forward and backward": gradients, "forward": forward, "reading and augmenting alone": augmented}
    return {WHOLE: photographs, NOISE: on_noise, BARE: on_tensors} | parts_of_it


def theirs(images: Images, of: dict, device: torch.device, folder: Path) -> dict[str, Callable[[], None]]:
    """torchvision's AlexNet, by its own pipeline from JPEG files and on random tensors."""
    for i, label in enumerate(images.labels.tolist()):
        path = folder / f"{label:04d}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(images.raw([i])[0].numpy()).save(path, quality=90)
    steps = [v2.RandomResizedCrop(of["size"], antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    files = Subset(torchvision.datasets.ImageFolder(str(folder), transform), range(len(images)))
    model = torchvision.models.alexnet(num_classes=1000).to(device, memory_format=torch.channels_last)  # pyright: ignore
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=device.type == "cuda")
    config = Config(precision=of["precision"], optim=replace(Config().optim, clip_rms=0.0))
    workers, pinned = os.cpu_count() or 1, device.type == "cuda"
    loader = DataLoader(files, of["batch"], shuffle=True, num_workers=workers, persistent_workers=True, pin_memory=pinned)
    random = torch.randn(of["batch"], 3, of["size"], of["size"], device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(of["batch"], dtype=torch.int64, device=device)

    def loop(batches) -> None:
        for x, y in batches:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            step(model, model, optimizer, x.contiguous(memory_format=torch.channels_last), y, config)  # pyright: ignore

    bare = [(random, labels)] * (len(images) // of["batch"])
    return {f"{TORCHVISION}, {WHOLE}": lambda: loop(loader), f"{TORCHVISION}, {BARE}": lambda: loop(bare)}


def roofline(config: Config, measured: dict, name: str) -> dict:
    """The share of a GPU's arithmetic that a step uses: forward and twice as much backward, two operations a multiply-add."""
    rows = list(zfnet.describe(zfnet.zfnet(1000, norm="batch", fc=config.model.fc, size=config.model.size)))
    tera = 3 * 2 * sum(row.macs for row in rows) * measured[f"{WHOLE}, images/s"][0] / 1e12
    peak = next((peak for gpu, peak in FIGURE.config["peak, TFLOP/s"].items() if gpu in name), None)
    return {"TFLOP/s": tera} | ({"share of the peak": tera / peak} if peak else {})


def draw(result: Result):
    rates = {name: values for name, values in result.measured.items() if name.endswith(", images/s")}
    axes = (figure := new_figure(9, 0.42 * len(rates) + 0.9)).subplots()
    for i, (name, (median, least, most)) in enumerate(rates.items()):
        colour = LINES[1] if name.startswith(TORCHVISION) else LINES[0]
        axes.barh(i, median, 0.7, color=colour, xerr=[[median - least], [most - median]], capsize=3)
        axes.text(most, i, f" {number(float(median))}", va="center", fontsize=9)
    axes.set_yticks(range(len(rates)), [name.removesuffix(", images/s") for name in rates])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=2 * max(values[2] for values in rates.values()))
    axes.set_xlabel("images a second, logarithmic: median, least and most")
    axes.grid(axis="x", alpha=0.3)
    return {"bench_train.png": figure}
