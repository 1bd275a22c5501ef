"""What the page shows, computed by the library's public functions.

Each method answers one kind of request with a header and arrays (see `wire`). All run in the
worker's thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from torch import Tensor

from zfnet.attribution.registry import METHODS
from zfnet.data import no_progress
from zfnet.explorer.atlas import Atlas
from zfnet.explorer.errors import BadRequest
from zfnet.explorer.images import ImageStore
from zfnet.explorer.query import Unit
from zfnet.explorer.results import Results
from zfnet.explorer.variants import Rules, project_variant
from zfnet.explorer.wire import to_bytes
from zfnet.forward import Trace, run, trace
from zfnet.graph import NORMS, UnknownLayer, conv_layers, is_chain
from zfnet.model import device_of, evaluating
from zfnet.occlusion import cover
from zfnet.outputs import probability_function
from zfnet.plot import HEAT, LINES, attribution_image, photograph, projection_image
from zfnet.projection import Projection, project
from zfnet.receptive_field import cut, field_or_image

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]
BEST = 5  # classes
TRACES = 2  # in the cache; ZFNet takes 20 MB each, VGG-16 300 MB
MAX_MAPS = 64  # per request


class Backend:
    """One network, the images in memory, and the atlas.

    Args:
        model: A network with `classes` and `size`, as `zfnet.load` returns it.
        name: What the page calls the network.
        source: Python that loads it, such as `zfnet.load("imagenet65k")`, for the code that
            reproduces a picture; None if there is none.
        atlas: The folder of an atlas of this network, or None.

    Raises:
        UnsupportedNetwork: If the deconvnet cannot invert the network.
    """

    def __init__(self, model: Any, name: str, source: str | None = None, atlas: Path | None = None):
        self.model, self.name, self.source = model, name, source
        self.images = ImageStore(model.size, device_of(model))
        self.atlas = Atlas(atlas, getattr(model, "info", {}).get("sha256", ""))
        self._traces: OrderedDict[str, tuple[Tensor, Trace]] = OrderedDict()
        self.results = Results(model, self.images)
        blank = torch.zeros(1, 3, model.size, model.size, device=device_of(model))
        self.structure = trace(model, blank)  # its layers and shapes; it also warms up torch
        self.to_probabilities = probability_function(model)
        steps = self.structure.steps
        self.layers = [
            name for name in self.structure.layers if self.structure[name].ndim in (2, 4)
        ]
        self.fields = {name: field_or_image(steps, name) for name in self.layers}
        # The occlusion maps of a network with branches have no strongest map (see `zfnet.occlude`).
        self.last = conv_layers(steps)[-1] if is_chain(steps) and conv_layers(steps) else None

    def describe(self) -> dict[str, Any]:
        """The network, and what the page can choose from."""
        t = self.structure
        colors = colormaps[HEAT](np.linspace(0, 1, 64))
        return {
            "network": self.name, "size": self.model.size, "classes": list(self.model.classes),
            "layers": [self._describe_layer(layer) for layer in self.layers],
            "normalizes": any(isinstance(step.module, NORMS) for step in t.steps),
            "samples": self.images.samples, "methods": list(METHODS), "atlas": self.atlas.status,
            "heat": [to_hex(color) for color in colors], "lines": LINES,
        }  # fmt: skip

    def _describe_layer(self, layer: str) -> dict[str, Any]:
        maps = _as_maps(self.structure[layer])
        described = {"name": layer, "maps": maps.shape[1], "size": list(maps.shape[2:])}
        if field := self.fields[layer]:
            described |= {"field": field.size, "stride": field.stride, "offset": field.offset}
        return described

    def trace(self, image: str) -> Trace:
        """Return the trace of an image. The last ones are cached."""
        x = self.images[image]
        cached = self._traces.get(image)
        if cached is None or cached[0] is not x:  # a webcam frame was replaced
            cached = self._traces[image] = (x, trace(self.model, x))
        self._traces.move_to_end(image)
        while len(self._traces) > TRACES:
            self._traces.popitem(last=False)
        return cached[1]

    def image(self, image: str) -> Answer:
        """The image as the network sees it, and its most probable classes."""
        t = self.trace(image)
        pixels = to_bytes(photograph(t.x.cpu())[0])
        ranking = best(t.logits, self.to_probabilities)
        return {"image": image, "label": self.images.label(image)} | ranking, {"pixels": pixels}

    def maps(self, image: str, layer: str, start: int, count: int) -> Answer:
        """The feature maps of a layer, strongest first, each scaled by its own maximum."""
        maps = self._maps(image, layer)[0]
        value, place = maps.flatten(1).max(1)  # (C,); the first maximum in reading order
        chosen = value.argsort(descending=True, stable=True)[start : start + count]
        scaled = maps[chosen].clamp_min(0) / value[chosen, None, None].clamp_min(1e-12)
        columns = maps.shape[2]
        return {
            "layer": layer, "start": start, "total": len(maps), "units": chosen.tolist(),
            "values": value[chosen].tolist(),
            "positions": [[p // columns, p % columns] for p in place[chosen].tolist()],
        }, {"maps": to_bytes(scaled.cpu().numpy())}  # fmt: skip

    def unit(self, image: str, unit: Unit, rules: Rules) -> Answer:
        """One unit: its map, its receptive field, the patch that it sees, and its projection."""
        maps = self._maps(image, unit.layer)
        self._check(unit, maps)
        p = project(self.model, self.images[image], unit.layer, unit.channel, unit.at, crop=True)
        paper = p.pixels
        pixels = paper if rules == Rules() else self._variant(image, unit, p, rules)
        pictures = projection_image(torch.cat([pixels, paper]).cpu())
        top, left, bottom, right = self._inside(p, paper.shape[2:])
        row, column = p.position[0].tolist()
        header = {
            "layer": unit.layer, "unit": unit.channel, "at": [row, column],
            "activation": float(p.activation[0]), "box": p.box[0].tolist(),
            "size": list(maps.shape[2:]), "maximum": float(maps[0, unit.channel].max()),
            "similarity": cosine(pixels, paper), "largest": float(pixels.abs().max()),
        }  # fmt: skip
        return header, {
            "map": maps[0, unit.channel].float().cpu().numpy(),
            "patch": to_bytes(photograph(self._patch(image, p).cpu())[0]),
            "projection": to_bytes(pictures[0])[top:bottom, left:right],
            "paper": to_bytes(pictures[1])[top:bottom, left:right],
        }

    def _variant(self, image: str, unit: Unit, p: Projection, rules: Rules) -> Tensor:
        row, column = p.position[0].tolist()
        pixels = project_variant(
            self.model, self.trace(image), unit.layer, unit.channel, (row, column), rules
        )
        return cut(pixels, p.corner, p.pixels.shape[-1]) if self.fields[unit.layer] else pixels

    def _patch(self, image: str, p: Projection) -> Tensor:
        """The image inside a unit's receptive field (1, 3, h, w)."""
        top, left, bottom, right = p.box[0].tolist()
        return self.images[image][:, :, top:bottom, left:right]

    def _inside(self, p: Projection, size: Sequence[int]) -> list[int]:
        """The part of a cropped projection that is inside the image: (top, left, bottom, right)."""
        (top, left), box = p.corner[0].tolist(), p.box[0].tolist()
        edges = [box[0] - top, box[1] - left, box[2] - top, box[3] - left]
        return [min(edge, side) for edge, side in zip(edges, [*size, *size], strict=True)]

    def neighbors(self, unit: Unit) -> Answer:
        """The nine strongest images of a feature in the atlas."""
        self._check(unit, _as_maps(self._layer(self.structure, unit.layer)))
        return self.atlas.neighbors(unit.layer, unit.channel)

    def cover(
        self,
        image: str,
        box: tuple[int, int, int, int] | None,
        target: int | None,
        pins: list[Unit],
    ) -> dict[str, Any]:
        """The network's response with a box (top, left, bottom, right) covered by the mean gray."""
        t = self.trace(image)
        for pin in pins:
            self._check(pin, self._maps(image, pin.layer))
        assert t.logits is not None
        if target is None:
            target = int(t.logits[0].argmax())
        if not 0 <= target < t.logits.shape[1]:
            raise BadRequest(f"target must be from 0 to {t.logits.shape[1] - 1}, got {target}")
        strongest = None
        if self.last:
            channel = int(t[self.last][0].amax((1, 2)).argmax())
            strongest = Unit(self.last, channel)
        answer = {
            "target": target, "strongest": strongest and [strongest.layer, strongest.channel],
            "baseline": self._responses(t, t.logits, target, strongest, pins), "box": None,
        }  # fmt: skip
        if box is not None:
            side = self.model.size
            top, left, bottom, right = (min(max(edge, 0), side) for edge in box)
            if top >= bottom or left >= right:
                raise BadRequest(
                    "box must be top,left,bottom,right, with top < bottom, left < right"
                )
            boxes = torch.tensor([[top, left, bottom, right]], device=t.x.device)
            covered = cover(t.x[0], boxes, torch.zeros_like(t.x[0]))
            names = {pin.layer for pin in pins} | ({self.last} if self.last else set())
            with evaluating(self.model), torch.no_grad():
                c = run(self.structure.steps, covered, keep=names, switches=False)
            answer |= self._responses(c, c.output, target, strongest, pins)
            answer["box"] = [top, left, bottom, right]
        return answer

    def _responses(
        self, t: Trace, logits: Tensor | None, target: int, strongest: Unit | None, pins: list[Unit]
    ) -> dict[str, Any]:
        assert logits is not None
        probability, label = self.to_probabilities(logits[0]), int(logits[0].argmax())
        units = [_as_maps(t[pin.layer])[0, pin.channel] for pin in pins]
        return {
            "probability": float(probability[target]), "logit": float(logits[0, target]),
            "label": label, "label_probability": float(probability[label]),
            "total": strongest and float(t[strongest.layer][0, strongest.channel].sum()),
            "pins": [float(maps[pin.at]) for maps, pin in zip(units, pins, strict=True) if pin.at],
        }  # fmt: skip

    def sweep(
        self,
        image: str,
        size: int,
        stride: int,
        target: int | None,
        progress: Callable = no_progress,
    ) -> dict[str, Any]:
        """Cover one position after another: the maps of Fig. 7."""
        o = self.results.occlusion(image, size, stride, target, progress)
        total = {} if o.activation is None else {"total": o.activation.tolist()}
        strongest = None if o.channel is None else [self.last, int(o.channel)]
        return {
            "size": size, "stride": stride, "target": int(o.target), "boxes": o.boxes.tolist(),
            "strongest": strongest, "probability": o.probability.tolist(),
            "logit": o.logit.tolist(),
            "label": o.label.tolist(), **total,
        }  # fmt: skip

    def explain(
        self, image: str, method: str, target: int | None, progress: Callable = no_progress
    ) -> Answer:
        """The attribution map of a class by one of METHODS."""
        a = self.results.attribution(image, method, target, progress)
        picture, scale = attribution_image(a.map.detach().cpu())
        return {
            "method": method, "target": int(a.target[0]), "state": a.state[0],
            "low": float(a.map.min()), "high": float(a.map.max()), "scale": float(scale[0]),
        }, {"picture": to_bytes(picture[0])}  # fmt: skip

    def _layer(self, t: Trace, layer: str) -> Tensor:
        if layer not in self.layers:
            raise UnknownLayer(f"no layer {layer[:40]!r}; the network has {', '.join(self.layers)}")
        return t[layer]

    def _maps(self, image: str, layer: str) -> Tensor:
        """A layer's activations (1, C, H, W); a dense layer's are maps of one position."""
        return _as_maps(self._layer(self.trace(image), layer))

    def _check(self, unit: Unit, maps: Tensor) -> None:
        """Raise BadRequest for a channel or position outside the layer."""
        channels, rows, columns = maps.shape[1:]
        if not 0 <= unit.channel < channels:
            raise BadRequest(f"{unit.layer} has units 0 to {channels - 1}, got {unit.channel}")
        if unit.at and not (0 <= unit.at[0] < rows and 0 <= unit.at[1] < columns):
            size = f"rows 0 to {rows - 1} and columns 0 to {columns - 1}"
            raise BadRequest(f"{unit.layer} has {size}, got {unit.at[0]},{unit.at[1]}")


def best(logits: Tensor | None, to_probabilities: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """The most probable classes of one image, most probable first."""
    assert logits is not None
    probability = to_probabilities(logits[0])
    order = probability.argsort(descending=True, stable=True)[:BEST]
    return {
        "best": order.tolist(),
        "probability": probability[order].tolist(),
        "logit": logits[0, order].tolist(),
    }


def cosine(a: Tensor, b: Tensor) -> float | None:
    """The cosine similarity of two projections, or None if one is zero."""
    a, b = a.flatten().double(), b.flatten().double()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 0 else None


def _as_maps(output: Tensor) -> Tensor:
    return output if output.ndim == 4 else output[:, :, None, None]  # (N, C) -> (N, C, 1, 1)
