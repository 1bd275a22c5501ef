"""The declaration of a figure, and the result that its script computes. Imports no torch.

A script in `reproduce/paper/`, `lectures/` or `bench/` holds

- `FIGURE = Figure(...)`, the declaration;
- `compute(ctx: Context) -> Result`, slow and cached;
- `draw(result: Result) -> dict`, fast and without a model. It returns pictures by file name:
  matplotlib figures, or the frames of a GIF as uint8 (N, H, W, 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

SAMPLES = "samples"  # the corpus of the sample photographs
DEFAULT_MODEL = "imagenet65k"  # bundled; its results are in folders without a network's name


@dataclass(frozen=True)
class Figure:
    """A figure or table of the paper, or a picture of a lecture.

    The cache key consists of `id`, `version`, `config`, `seed`, the hashes of `inputs` and the
    contents of `files`. It never depends on source text. Every number that decides a result and
    that a reader may want to change (image counts, sizes, strides, steps) belongs in `config`.

    Attributes:
        id: Name on the command line and of the result's folder.
        title: Title on the pages.
        claim: What the paper claims, in one sentence or two.
        inputs: Any of "model", "images", "top", "tree", "pretraining", "device" (the
            result depends on the type of device) and the names in `corpora.DATASETS`.
        seed: Seed of all random choices.
        time_budget: Seconds at sample scale.
        paper: The paper's numbers, under the names of our measurements if they are comparable.
        config: Our settings.
        files: YAML and CSV files that the script reads, relative to its folder.
        manual: Run only by its id, not by `all`.
        corpus: Name of the figure's own data set, and of the folder of its result. Empty for a
            figure of the run's corpus.
        version: Increase it when the result of `compute` changes for the same `config` and `seed`.
            `draw` does not count: delete a picture to have it drawn again from cached arrays.
        trains: Whether the figure trains networks.
        scales: The values of `--scale` that the figure supports.
        labels: Whether it needs labeled images, which the sample photographs are not.
        network: Which network it supports: "any" of torchvision's; "layers", one with the layers
            conv1 to conv5 and fc7, as chains and the networks of `core.stages` have; a "chain"; or
            a network of this package, "zfnet".
        headline: Up to eight measured numbers for the short tables of the pages, as "group: name".
            A literal. Default: the first eight, those with published numbers first.
        cover: The picture that stands for the figure on the pages. A literal. Default: the first.
    """

    id: str
    title: str
    claim: str
    inputs: tuple[str, ...]
    seed: int
    time_budget: float
    paper: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    manual: bool = False
    corpus: str = ""
    version: int = 1
    trains: bool = False
    scales: tuple[str, ...] = ()
    labels: bool = False
    network: str = "any"
    headline: tuple[str, ...] = ()
    cover: str = ""

    @property
    def uses_model(self) -> bool:
        """Whether the result depends on the network of `--model`."""
        return bool({"model", "top"} & set(self.inputs))

    @property
    def uses_images(self) -> bool:
        """Whether the result depends on the corpus of `--data`."""
        return bool({"images", "top"} & set(self.inputs))


@dataclass(frozen=True)
class Result:
    """What `compute` returns.

    Attributes:
        arrays: What `draw` needs, by name.
        measured: The measured numbers, for the record.
        verdict: One of `record.VERDICTS`.
        n: How many images, networks or trials were measured.
        note: What a reader needs to know: the protocol, and limitations.
        scale: One of `record.SCALES`, for figures with a separate data set. Empty if the
            inputs determine it.
        finding: What was found, in one sentence with measured numbers. Empty: the title of the
            cover picture, which states the finding.
        reason: Why the verdict is not "reproduced", in one sentence. Empty: the pages name the
            claims that do not hold or are undecided.
    """

    arrays: dict[str, np.ndarray]
    measured: dict[str, Any]
    verdict: str
    n: int
    note: str = ""
    scale: str = ""
    finding: str = ""
    reason: str = ""
