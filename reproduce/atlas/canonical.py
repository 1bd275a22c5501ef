"""Canonical images, where asked: what gradient ascent draws for a class or a feature (Simonyan et al. 2014, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from reproduce.atlas import describe_network
from reproduce.atlas.sheets import write_picture
from reproduce.atlas.site import read, save
from reproduce.core.context import Context
from zfnet.data.cache import DataError
from zfnet.plot import photograph

PHOTOGRAPHS = 100  # of the corpus, from which the colours are taken
SEED = 8
NOISE = 0.05  # around the mean grey, where the ascent begins
ASCENT = {
    "frequency": True,
    "steps": 96,
    "rate": 0.03,
    "jitter": 16,
    "variation": 40.0,
    "decay": 5.0,
}  # 10 s an image on a CPU


def resolve(context: Context, asked: Sequence[str]) -> dict[str, tuple[str | None, int]]:
    """The page of each name, "class/160" or "conv5/17", with the layer, None for logits, and the unit. Raises DataError."""
    layers = describe_network(context.model, None)[1]
    pages: dict[str, tuple[str | None, int]] = {}
    for name in asked:
        layer, _, number = name.partition("/")
        if layer in layers:
            if not number.isdecimal() or int(number) not in layers[layer]:
                raise DataError(
                    f"{name}: {layer} has features {layer}/0 to {layer}/{layers[layer][-1]}"
                )
            pages[f"{layer}/{int(number)}"] = (layer, int(number))
            continue
        try:
            c = context.model.class_index(name)
        except ValueError as error:
            raise DataError(str(error)) from None
        pages[f"class/{c}"] = (None, c)
    return pages


def add(context: Context, out: Path, asked: Sequence[str]) -> None:
    """Draw the canonical images of classes and features into an atlas, those that it does not have; the index lists them.

    From grey noise, in frequency space and the colours of the corpus. A feature is taken at the centre of its map.
    """
    from zfnet.synthesis.ascent import ascend, color_root  # the rest of an atlas does without

    index = read(out, "index")
    images, model, drawn = context.images, context.model, index.get("canonical", {})
    pages = {page: target for page, target in resolve(context, asked).items() if page not in drawn}
    some = np.linspace(0, len(images) - 1, min(len(images), PHOTOGRAPHS)).astype(int)
    colours = color_root(images.batch(some)) if pages else None
    for page, (layer, unit) in context.progress(
        pages.items(), total=len(pages), desc="canonical images"
    ):
        generator = torch.Generator().manual_seed(SEED)
        start = NOISE * torch.randn(1, 3, model.size, model.size, generator=generator).to(
            context.device
        )
        with torch.enable_grad():
            found = ascend(
                model,
                start,
                unit,
                layer=layer,
                position="center",
                colors=colours,
                generator=generator,
                **ASCENT,
            )
        file = f"demos/canonical-{page.replace('/', '-')}.webp"
        write_picture(out / file, photograph(found.pixels.cpu())[0])
        said: dict = {"file": file, "value": float(found.activation[0])}
        if layer is None:
            said["probability"] = float(model(found.pixels).softmax(1)[0, unit])
        drawn = drawn | {page: said}
        save(out, "index", index | {"canonical": drawn})
