"""The methods of the package on one photograph, as small pictures for the README.

    python -m reproduce.site.methods

It writes docs/methods/NAME.jpg. The photograph is scikit-image's cat; the class is the network's
most probable one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import zfnet
from reproduce import REPOSITORY
from zfnet.plot import attribution_image, overlay, photograph, projection_image
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.fourier import color_root

FOLDER = REPOSITORY / "docs" / "methods"
SIDE = 176  # pixels
STEPS = 100  # of gradient ascent
METHODS = tuple(zfnet.METHODS)
PIXELS = ("guided_backprop", "deconvnet", "guided_grad_cam")  # drawn as signed pixels


def attributions(model: nn.Module, x: Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """Draw every method of `zfnet.METHODS`."""
    photo = photograph(x)[0]
    for name in METHODS:
        a = zfnet.explain(model, x, name)
        if name in PIXELS and a.pixels is not None:
            yield name, projection_image(a.pixels)[0]
        else:
            yield name, overlay(photo, attribution_image(a.map)[0][0])


def projection(model: nn.Module, x: Tensor) -> np.ndarray:
    """Draw the projection of the strongest feature of layer 5."""
    channel = int(zfnet.trace(model, x, until="conv5")["conv5"][0].amax((1, 2)).argmax())
    return projection_image(zfnet.project(model, x, "conv5", channel).pixels)[0]


def class_image(model: nn.Module, x: Tensor) -> np.ndarray:
    """Draw what gradient ascent finds for the class of a photograph."""
    rng = torch.Generator().manual_seed(0)
    start = 0.05 * torch.randn(x.shape, generator=rng)
    drawn = ascend(
        model,
        start,
        int(model(x).argmax()),
        frequency=True,
        colors=color_root(x),
        jitter=16,
        steps=STEPS,
        generator=rng,
    )
    return photograph(drawn.pixels)[0]


def save(path: Path, image: np.ndarray) -> None:
    """Write an image (H, W, 3) in [0, 1]."""
    picture = Image.fromarray((255 * image).round().astype(np.uint8))
    picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(path, quality=88)


def main(folder: Path = FOLDER, model: nn.Module | None = None) -> int:
    """Write the pictures."""
    model = model or zfnet.load()
    x = zfnet.preprocess(zfnet.photograph("cat"))
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "photograph.jpg", photograph(x)[0])
    for name, image in attributions(model, x):
        save(folder / f"{name}.jpg", image)
    others: dict[str, Callable] = {"project": projection, "ascend": class_image}
    for name, draw in others.items():
        save(folder / f"{name}.jpg", draw(model, x))
    print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
