"""Occlusion and attribution maps, which take seconds: the last ones are kept for "save"."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor

from zfnet.attribution.base import Attribution
from zfnet.attribution.registry import explain
from zfnet.data import no_progress
from zfnet.explorer.images import ImageStore
from zfnet.occlusion import Occlusion, occlude

KEPT = 4
BATCH = 16  # images per step of the progress bar


class Results:
    """The maps of one network and its images."""

    def __init__(self, model: Any, images: ImageStore):
        self.model, self.images = model, images
        self._cache: OrderedDict[tuple, tuple[Tensor, Any]] = OrderedDict()

    def occlusion(
        self,
        image: str,
        size: int,
        stride: int,
        target: int | None,
        progress: Callable = no_progress,
    ) -> Occlusion:
        """Occlude an image at all positions, as `zfnet.occlude` does."""
        options = {"size": size, "stride": stride, "batch": BATCH, "progress": progress}
        return self._cached(
            (image, "sweep", size, stride, target),
            lambda x: occlude(self.model, x, target, **options),
        )

    def attribution(
        self, image: str, method: str, target: int | None, progress: Callable = no_progress
    ) -> Attribution:
        """Explain a class by one of METHODS, as `zfnet.explain` does."""
        options = {"progress": progress} if method == "occlusion" else {}
        return self._cached(
            (image, method, target), lambda x: explain(self.model, x, method, target, **options)
        )

    def _cached(self, key: tuple, compute: Callable[[Tensor], Any]) -> Any:
        """Return the result of a key, whose first entry is the image, or compute it."""
        x = self.images[key[0]]
        entry = self._cache.pop(key, None)
        if entry is None or entry[0] is not x:  # a new webcam frame has the name of the last one
            entry = (x, compute(x))
        self._cache[key] = entry
        while len(self._cache) > KEPT:
            self._cache.popitem(last=False)
        return entry[1]
