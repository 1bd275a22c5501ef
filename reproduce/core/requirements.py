"""What figures need: the options that each supports, and the inputs that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from reproduce.core.context import Context
from reproduce.core.corpora import DATASETS
from reproduce.core.figure import SAMPLES, Figure
from reproduce.core.networks import unsupported_network

OPTION_INPUTS = {  # the inputs that each option changes
    "data": {"images", "top", "tree", "pretraining"},
    "datasets": set(DATASETS),
    "model": {"model", "top"},
    "weights": {"model", "top"},
}
DATASET_NAMES = {
    "caltech101": "Caltech-101",
    "caltech256": "Caltech-256",
    "voc2012 train": "VOC 2012",
    "digits": "MNIST",
}
CORPUS_NAMES = {
    "caltech101": "Caltech-101",
    "caltech256": "Caltech-256",
    "voc2012": "VOC 2012",
    "mnist": "MNIST",
    "scenes": "drawn scenes",
}


def supports(figure: Figure, option: str) -> bool:
    """Whether an option (data, datasets, model, scale, weights) changes a figure's result."""
    if option == "scale":
        return bool(figure.scales)
    return bool(OPTION_INPUTS[option] & set(figure.inputs))


def unused_option(
    options: Mapping[str, object], figures: Iterable[Figure], description: str = ""
) -> str:
    """A message about the first option that no figure supports; "" if there is none.

    Args:
        options: Values of the command line; None for an option that was not given.
        figures: The requested figures.
        description: Replaces the figures' ids in the message.
    """
    figures = list(figures)
    names = description or ", ".join(figure.id for figure in figures)
    for option, value in options.items():
        if value is not None and not any(supports(figure, option) for figure in figures):
            return f"--{option} has no effect on {names}; omit it"
    return ""


def needs(figure: Figure) -> list[str]:
    """The inputs that a reader has to provide, with the option for each."""
    inputs = []
    if figure.labels:
        inputs.append("labeled images (--data)")
    if "tree" in figure.inputs:
        inputs.append("train/ and val/ (--data)")
    if names := _dataset_names(figure):
        inputs.append(f"{' and '.join(names.values())} (--datasets)")
    return inputs


def missing_input(figure: Figure, context: Context) -> str:
    """A sentence on which input is missing and which option gives it; "" where none is.

    It lists folders, and decodes no image.
    """
    if figure.labels and context.corpus == SAMPLES:
        return "It needs labeled images; give ImageNet or a part of it with --data."
    if "tree" in figure.inputs and not (context.tree and (context.tree / "train").is_dir()):
        return "It needs a tree with train/ and val/; give ImageNet or a part of it with --data."
    names = _dataset_names(figure)
    absent = [name for key, name in names.items() if not _dataset_folder(context, key).is_dir()]
    if names and len(absent) == len(names):
        sets = " and ".join(absent)
        return f"{sets} not found in {context.datasets}; give the folder with --datasets."
    if figure.scales and context.requested_scale == "paper" and context.too_small_for_paper_scale:
        return f"{context.too_small_for_paper_scale}."
    return unsupported_network(figure, context)


def _dataset_names(figure: Figure) -> dict[str, str]:
    """Names of the data sets that a figure needs, by input. MNIST has a substitute."""
    inputs = [name for name in figure.inputs if name in DATASET_NAMES and name != "digits"]
    return {name: DATASET_NAMES[name] for name in inputs}


def _dataset_folder(context: Context, name: str) -> Path:
    """Where torchvision keeps a data set."""
    return context.datasets / {"voc2012 train": "VOCdevkit"}.get(name, name)
