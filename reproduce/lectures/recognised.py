"""What the network says of every image of a corpus, computed once and kept in the cache: several pictures look at it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import zfnet
from zfnet.data.cache import cached_array, digest


@dataclass(frozen=True, eq=False)
class Recognised:
    """Of N labelled images the `probability` (N, K) of every class, the codes of layer 7 (N, F), and the `labels` (N,)."""

    probability: np.ndarray
    codes: np.ndarray
    labels: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        return self.probability.argmax(1)

    @property
    def right(self) -> np.ndarray:
        return self.predicted == self.labels

    def rank(self) -> np.ndarray:
        """The rank of each image's true class, from 1."""
        own = self.probability[np.arange(len(self.labels)), self.labels]
        return 1 + (self.probability > own[:, None]).sum(1)


def recognise(ctx, batch: int = 100) -> Recognised:
    """The whole corpus, which must be labelled, in half precision from the cache, or by one pass of some minutes."""
    model, images = ctx.model, ctx.images
    widths = len(model.classes), model.fc8.in_features

    def fill(array: np.ndarray) -> dict:
        found = array.view(np.float16)
        for first in ctx.progress(range(0, len(images), batch), desc="recognising"):
            rows = np.arange(first, min(first + batch, len(images)))
            t = zfnet.trace(model, images.batch(rows).to(ctx.device))
            found[rows] = torch.cat([t.logits, t["fc7"]], 1).half().cpu().numpy()
        return {}

    key = digest("recognised", model.info["sha256"], images.digest)
    kept = cached_array(f"recognised-{key[:20]}", (len(images), 2 * sum(widths)), fill)[0].view(
        np.float16
    )
    logits, codes = np.split(np.asarray(kept, dtype=np.float32), [widths[0]], 1)
    return Recognised(torch.from_numpy(logits).softmax(1).numpy(), codes, images.labels)


def training_images(ctx) -> np.ndarray | None:
    """How many training images each class has in the tree's train/: (K,), or None where there is no such tree."""
    train = Path(ctx.data or "").expanduser().resolve()
    train = (train.parent if train.name == "val" else train) / "train"
    if not ctx.data or not train.is_dir():
        return None
    return np.array(
        [
            len(list((train / wnid).iterdir())) if (train / wnid).is_dir() else 0
            for wnid in ctx.model.wnids
        ]
    )
