"""What figures need: the options that each can use, the inputs that are missing, and what a run would do with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reproduce.core import costs
from reproduce.core.context import Context
from reproduce.core.corpora import DATASETS
from reproduce.core.figure import SAMPLES, Figure
from reproduce.core.networks import unsupported_network
from reproduce.core.record import Record, read_record
from reproduce.core.run import result_folder
from zfnet.data.cache import DataError
from zfnet.data.folders import scan

IMAGES, NETWORK = {"images", "top", "tree", "pretraining"}, {"model", "top", "snapshots"}
NAMES = {
    "caltech101": "Caltech-101",
    "caltech256": "Caltech-256",
    "voc2012 train": "VOC 2012",
    "digits": "MNIST",
}
CORPORA = {
    "caltech101": "Caltech-101", "caltech256": "Caltech-256", "voc2012": "VOC 2012", "mnist": "MNIST", "scenes": "drawn scenes"
}  # fmt: skip


def can_use(figure: Figure, option: str) -> bool:
    """Whether an option of the command line (data, datasets, model, scale, weights) changes anything for a figure."""
    if option == "scale":
        return bool(figure.scales)
    wanted = {"data": IMAGES, "datasets": set(DATASETS), "model": NETWORK, "weights": NETWORK}[
        option
    ]
    return bool(wanted & set(figure.inputs))


def refuse_unused(
    given: Mapping[str, object], figures: Iterable[Figure], asked_for: str = ""
) -> str:
    """One line about an option that was given and that none of the figures can use; "" where there is none.

    `asked_for` replaces the figures' ids in the message.
    """
    figures = list(figures)
    names = asked_for or ", ".join(figure.id for figure in figures)
    for option, value in given.items():
        if value is not None and not any(can_use(figure, option) for figure in figures):
            return f"--{option} has no effect on {names}; leave it out"
    return ""


def needs(figure: Figure) -> list[str]:
    """The inputs that a reader has to provide, in a few words each."""
    found = []
    if figure.labels:
        found.append("labeled images (--data)")
    if "tree" in figure.inputs:
        found.append("train/ and val/ (--data)")
    if "snapshots" in figure.inputs:
        found.append("a run with snapshots (--model)")
    sets = [NAMES[name] for name in figure.inputs if name in NAMES and name != "digits"]
    return found + [f"{' and '.join(sets)} (--datasets)"] * bool(sets)


def missing_input(figure: Figure, context: Context) -> str:
    """Which input is missing and which option gives it, in a sentence; "" where nothing is. Decodes no image."""
    if figure.labels and context.corpus == SAMPLES:
        return "It needs labeled images; give ImageNet or a part of it with --data."
    if "tree" in figure.inputs and (context.tree is None or not (context.tree / "train").is_dir()):
        return "It needs a tree with train/ and val/; give ImageNet or a part of it with --data."
    if "snapshots" in figure.inputs and len(context.snapshots) < 3:
        return (
            "It needs a run with at least three snapshots; give RUN/model.safetensors with --model."
        )
    sets = [name for name in figure.inputs if name in DATASETS and name != "digits"]
    absent = [
        NAMES[name] for name in sets if name in NAMES and not dataset_folder(context, name).is_dir()
    ]
    if sets and len(absent) == len([name for name in sets if name in NAMES]):
        return f"{' and '.join(absent)} not found in {context.datasets}; give the folder with --datasets."
    return unsupported_network(figure, context)


def dataset_folder(context: Context, name: str) -> Path:
    """Where torchvision keeps a data set."""
    return context.datasets / {"voc2012 train": "VOCdevkit"}.get(name, name)


@dataclass(frozen=True)
class Forecast:
    """What a run would do for one figure: a line of --dry-run."""

    figure: Figure
    action: str  # compute, train or not run
    data: str
    scale: str
    folder: Path
    seconds: float
    source: str  # what the seconds are estimated from
    reason: str
    record: Record | None


def forecast(figure: Figure, context: Context, out: Path) -> Forecast:
    """What a run would do for one figure. Lists files, and neither decodes an image nor computes anything."""
    reason = missing_input(figure, context)
    action = "not run" if reason else "train" if figure.trains else "compute"
    folder = result_folder(figure, context, out)
    seconds, source = costs.estimate(figure, context) if not reason else (0.0, "")
    data, scale = data_of(figure, context), scale_of(figure, context)
    return Forecast(
        figure, action, data, scale, folder, seconds, source, reason, read_record(folder)
    )


def data_of(figure: Figure, context: Context) -> str:
    """The images that a figure would use, counted from their folders."""
    if "tree" in figure.inputs and context.tree is not None:
        classes, train, val = context.tree_size
        return f"{train:,} + {val:,} images of {classes:,} classes"
    if figure.corpus:
        return CORPORA[figure.corpus]
    if not {"images", "top"} & set(figure.inputs):
        return "none"
    if context.data is None:
        return "sample photographs"
    return "Imagenette" if context.data == "imagenette" else f"{count_images(context):,} images"


def scale_of(figure: Figure, context: Context) -> str:
    """The scale at which a figure would be made, as far as it is known before."""
    if figure.scales:
        return costs.scale_of(figure, context)
    if figure.corpus or not {"images", "top"} & set(figure.inputs):
        return "-"
    return SAMPLES if context.data is None else "subset"


def count_images(context: Context) -> int:
    """How many images a run would search, from the listing of the folder. Raises DataError where that is no tree."""
    root = Path(str(context.data)).expanduser()
    if not root.is_dir():
        raise DataError(f"{context.data}: no such folder")
    return len(scan(root / "val" if (root / "val").is_dir() else root)[1])
