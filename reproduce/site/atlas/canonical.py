"""Canonical images: gradient ascent on a class or a feature (Simonyan et al. 2014, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reproduce.core.context import Context
from reproduce.site.atlas.files import read, save
from reproduce.site.atlas.index import describe_network
from reproduce.site.atlas.sheets import write_picture
from zfnet.data.cache import DataError
from zfnet.plot import photograph

PHOTOGRAPHS = 100  # images of the corpus that give the colors
SEED = 8
NOISE = 0.05  # standard deviation around mean gray, where the ascent starts
# About 10 s per image on a CPU.
ASCENT: dict[str, Any] = {
    "frequency": True,
    "steps": 96,
    "rate": 0.03,
    "jitter": 16,
    "variation": 40.0,
    "decay": 5.0,
}


def resolve(context: Context, names: Sequence[str]) -> dict[str, tuple[str | None, int]]:
    """Find the pages of classes and features.

    Args:
        context: The network.
        names: Class names, or features such as "conv5/17".

    Returns:
        (layer, unit) by page, such as "class/160"; the layer of a class is None.

    Raises:
        DataError: The network has no such class or feature.
    """
    layers = describe_network(context.model, None)[1]
    pages: dict[str, tuple[str | None, int]] = {}
    for name in names:
        layer, _, number = name.partition("/")
        if layer in layers:
            last = layers[layer][-1]
            if not number.isdecimal() or int(number) not in layers[layer]:
                raise DataError(f"{name} is not a feature; available: {layer}/0 to {layer}/{last}")
            pages[f"{layer}/{int(number)}"] = (layer, int(number))
            continue
        try:
            c = context.model.class_index(name)
        except ValueError as error:
            raise DataError(str(error)) from None
        pages[f"class/{c}"] = (None, c)
    return pages


def add(context: Context, out: Path, names: Sequence[str]) -> None:
    """Add the missing canonical images of classes and features to an atlas, and to its index.

    Ascent starts from gray noise, in frequency space with the colors of the corpus. A feature is
    maximized at the center of its map.

    Args:
        context: The network and the corpus.
        out: The folder of the atlas.
        names: As in `resolve`.
    """
    # Slow to import, and rarely needed.
    from zfnet.synthesis.ascent import ascend
    from zfnet.synthesis.fourier import color_root

    index = read(out, "index")
    images, model, drawn = context.images, context.model, index.get("canonical", {})
    pages = {page: target for page, target in resolve(context, names).items() if page not in drawn}
    sample = np.linspace(0, len(images) - 1, min(len(images), PHOTOGRAPHS)).astype(int)
    colors = color_root(images.batch(sample)) if pages else None
    bar = context.progress(pages.items(), total=len(pages), desc="canonical images")
    for page, (layer, unit) in bar:
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn(1, 3, model.size, model.size, generator=generator)
        start = (NOISE * noise).to(context.device)
        with torch.enable_grad():
            ascent = ascend(
                model,
                start,
                unit,
                layer=layer,
                position="center",
                colors=colors,
                generator=generator,
                **ASCENT,
            )
        file = f"demos/canonical-{page.replace('/', '-')}.webp"
        write_picture(out / file, photograph(ascent.pixels.cpu())[0])
        entry: dict[str, Any] = {"file": file, "value": float(ascent.activation[0])}
        if layer is None:
            entry["probability"] = float(model(ascent.pixels).softmax(1)[0, unit])
        drawn = drawn | {page: entry}
        save(out, "index", index | {"canonical": drawn})
