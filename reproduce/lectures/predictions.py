"""The network's predictions for every image of a corpus, computed once and cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reproduce.core.context import Context
from zfnet.data.cache import cached_array, digest
from zfnet.forward import run
from zfnet.graph import Step, network_steps, with_inputs
from zfnet.graph.operations import WEIGHTED


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N labeled images and K classes.

    Attributes:
        probability: Probability of every class (N, K).
        codes: What the last layer reads, averaged over positions, (N, F): layer 7 of our networks.
        labels: True classes (N,).
    """

    probability: np.ndarray
    codes: np.ndarray
    labels: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image."""
        return self.probability.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """Whether the prediction is the label, (N,) bool."""
        return self.predicted == self.labels

    def rank(self) -> np.ndarray:
        """The rank of each image's true class among all classes, from 1."""
        true = self.probability[np.arange(len(self.labels)), self.labels]
        return 1 + (self.probability > true[:, None]).sum(1)


def predict_corpus(ctx: Context, batch: int = 25) -> Predictions:
    """Predict all images of a labeled corpus, or read the predictions from the cache.

    Args:
        ctx: The network and the corpus.
        batch: Images per forward pass, which bounds the memory.

    Returns:
        The predictions, from logits and codes in half precision.
    """
    model, images = ctx.model, ctx.images
    steps = network_steps(model, images.batch([0]).to(ctx.device))
    codes_name, width = last_input(steps)

    def fill(array: np.ndarray) -> dict[str, Any]:
        values = array.view(np.float16)
        for first in ctx.progress(range(0, len(images), batch), desc="predicting"):
            rows = np.arange(first, min(first + batch, len(images)))
            x = images.batch(rows).to(ctx.device)
            t = run(steps, x, keep=(codes_name,), switches=False)
            codes = t[codes_name].reshape(len(x), width, -1).mean(2)
            values[rows] = torch.cat([t.output, codes], 1).half().cpu().numpy()
        return {}

    key = digest("predictions", model.info["sha256"], images.digest)
    shape = (len(images), 2 * (len(model.classes) + width))  # bytes
    cached = cached_array(f"predictions-{key[:20]}", shape, fill)[0].view(np.float16)
    values = np.asarray(cached, dtype=np.float32)
    logits, codes = np.split(values, [len(model.classes)], 1)
    return Predictions(torch.from_numpy(logits).softmax(1).numpy(), codes, images.labels)


def last_input(steps: Sequence[Step]) -> tuple[str, int]:
    """Find what the last layer with weights reads: the name of the step, and its channels."""
    weighted = [pair for pair in with_inputs(steps) if isinstance(pair[0].module, WEIGHTED)]
    step, inputs = weighted[-1]
    module: Any = step.module
    return inputs[0], module.weight.shape[1]


def training_images(ctx: Context) -> np.ndarray | None:
    """The number of training images per class (K,); None without a tree that has train/."""
    train = Path(ctx.data or "").expanduser().resolve()
    train = (train.parent if train.name == "val" else train) / "train"
    if not ctx.data or not train.is_dir():
        return None
    folders = (train / wnid for wnid in ctx.model.wnids)
    return np.array([len(list(path.iterdir())) if path.is_dir() else 0 for path in folders])
