"""`Metric`, and the `Case` that it receives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from zfnet.attribution.custom import Method
from zfnet.benchmarking.guard import guarded_call


@dataclass(frozen=True, eq=False)
class Case:
    """One method's maps of one batch of images, and what a metric needs to score them.

    Attributes:
        model: The network, in evaluation mode.
        x: Images (N, C, H, W).
        target: The explained classes (N,).
        map: The maps (N, 1, H, W), finite: a map with NaN or infinity is replaced by zeros.
        mask: The objects (N, H, W) bool, or None if the data has no masks.
        method: The method, to explain again.
        name: The method's name.
        seed: Seed of the random numbers. They are the same for all methods and all images, so that
            scores do not depend on the batch.
        batch: The largest number of images per forward pass.
        pixels: The values (N, C, H, W) that the map was reduced from, or None.
        memo: Intermediate results that do not depend on the method, shared by all methods.
    """

    model: nn.Module
    x: Tensor
    target: Tensor
    map: Tensor
    mask: Tensor | None
    method: Method
    name: str
    seed: int = 0
    batch: int = 64
    pixels: Tensor | None = None
    memo: dict[Hashable, Any] = field(default_factory=dict)

    def explain(self, x: Tensor | None = None) -> Tensor:
        """Return the method's maps (N, 1, H, W) for the network's current weights.

        Args:
            x: Other images than the case's, with the same targets.
        """
        x = self.x if x is None else x
        return guarded_call(self.method, self.name, self.model, x, self.target).map

    def generator(self) -> torch.Generator:
        """Return a new CPU generator with the benchmark's seed."""
        return torch.Generator().manual_seed(self.seed)

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Compute a value that does not depend on the method once per batch of images."""
        if key not in self.memo:
            self.memo[key] = compute()
        return self.memo[key]

    @torch.no_grad()
    def logits(self, images: Tensor, target: Tensor) -> Tensor:
        """Return the logit of a class of each image, `batch` images per forward pass.

        Args:
            images: Images (M, C, H, W).
            target: Their classes (M,).
        """
        parts = zip(images.split(self.batch), target.split(self.batch), strict=True)
        return torch.cat([self.model(part).gather(1, t[:, None])[:, 0] for part, t in parts])


@dataclass(frozen=True)
class Metric:
    """A score per image.

    Attributes:
        name: The name in tables.
        score: Maps a `Case` to values (N,). NaN marks an image without a score.
        better: "higher", "lower", or "" if neither is better.
        unit: The unit of the values; "" for a number without one.
        needs_mask: Whether the data must mark the objects.
        options: Keyword arguments of `score`.
    """

    name: str
    score: Callable[..., Tensor]
    better: str = "higher"
    unit: str = ""
    needs_mask: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, case: Case) -> Tensor:
        return self.score(case, **self.options)

    def with_options(self, **options: Any) -> Metric:
        """Return the metric with other options of its score function.

        Args:
            **options: Keyword arguments, such as `tolerance=4` of the pointing game.

        Example:
            >>> from zfnet.benchmarking import METRICS
            >>> METRICS["pointing"].with_options(tolerance=4).options
            {'tolerance': 4}
        """
        return replace(self, options=self.options | options)
