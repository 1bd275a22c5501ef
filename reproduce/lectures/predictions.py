"""The network's predictions for every image of a corpus, computed once and cached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import zfnet
from reproduce.core.context import Context
from zfnet.data.cache import cached_array, digest


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N labeled images and K classes.

    Attributes:
        probability: Probability of every class (N, K).
        codes: Activations of layer 7, (N, F).
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


def predict_corpus(ctx: Context, batch: int = 100) -> Predictions:
    """Predict all images of a labeled corpus, or read the predictions from the cache.

    Args:
        ctx: The network and the corpus.
        batch: Images per forward pass.

    Returns:
        The predictions, from logits and codes in half precision.
    """
    model, images = ctx.model, ctx.images
    widths = len(model.classes), cast(torch.nn.Linear, model.fc8).in_features

    def fill(array: np.ndarray) -> dict[str, Any]:
        rows_of = array.view(np.float16)
        for first in ctx.progress(range(0, len(images), batch), desc="predicting"):
            rows = np.arange(first, min(first + batch, len(images)))
            t = zfnet.trace(model, images.batch(rows).to(ctx.device))
            assert t.logits is not None
            rows_of[rows] = torch.cat([t.logits, t["fc7"]], 1).half().cpu().numpy()
        return {}

    key = digest("recognised", model.info["sha256"], images.digest)
    shape = (len(images), 2 * sum(widths))  # bytes
    cached = cached_array(f"recognised-{key[:20]}", shape, fill)[0].view(np.float16)
    logits, codes = np.split(np.asarray(cached, dtype=np.float32), [widths[0]], 1)
    return Predictions(torch.from_numpy(logits).softmax(1).numpy(), codes, images.labels)


def training_images(ctx: Context) -> np.ndarray | None:
    """The number of training images per class (K,); None without a tree that has train/."""
    train = Path(ctx.data or "").expanduser().resolve()
    train = (train.parent if train.name == "val" else train) / "train"
    if not ctx.data or not train.is_dir():
        return None
    folders = (train / wnid for wnid in ctx.model.wnids)
    return np.array([len(list(path.iterdir())) if path.is_dir() else 0 for path in folders])
