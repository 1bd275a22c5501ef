"""What "save" writes: a picture with its caption, and the lines of Python that reproduce it.

Each view has one function that draws the picture and one that writes the code. They stay side by
side: a test runs the code and compares the pictures.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from zfnet import plot
from zfnet.explorer.backend import Backend
from zfnet.explorer.query import Unit
from zfnet.explorer.variants import Rules, project_variant
from zfnet.occlusion import cover
from zfnet.projection import project
from zfnet.receptive_field import cut

DPI = 150


@dataclass(frozen=True, eq=False)
class Shared:
    """A picture, its caption, the code that reproduces it, and a file name without suffix."""

    figure: Figure
    caption: str
    code: str
    name: str

    def png(self) -> bytes:
        """The picture as PNG; its metadata holds the caption and the code."""
        buffer = io.BytesIO()
        metadata = {"Title": self.caption, "Source": self.code, "Software": None}
        with plot.style():
            self.figure.savefig(buffer, format="png", dpi=DPI, metadata=metadata)
        return buffer.getvalue()


def share_unit(backend: Backend, image: str, unit: Unit, rules: Rules) -> Shared:
    """A unit's receptive field and projection."""
    x, layer, channel = backend.images[image], unit.layer, unit.channel
    p = project(backend.model, x, layer, channel, unit.at, crop=True)
    at = (int(p.position[0, 0]), int(p.position[0, 1]))
    box = p.box[0].tolist()
    title = (
        f"{layer}/{channel} at row {at[0]}, column {at[1]}: activation {float(p.activation[0]):.3f}"
        f"{_rules_in_words(rules)}"
    )
    if rules == Rules():
        full_pixels, patch = project(backend.model, x, layer, channel, at).pixels, p.pixels
    else:
        full_pixels = project_variant(
            backend.model, backend.trace(image), layer, channel, at, rules
        )
        patch = cut(full_pixels, p.corner, p.pixels.shape[-1])
    with plot.style():
        figure = plot.projection_figure(x.cpu(), patch.cpu(), full_pixels.cpu(), box, title)
    lines = [
        f"at, title = {at}, {title!r}",
        f'p = zfnet.project(model, x, "{layer}", {channel}, at, crop=True)',
    ]
    if rules == Rules():
        whole_code = f'zfnet.project(model, x, "{layer}", {channel}, at).pixels'
        lines += [f"whole, patch = {whole_code}, p.pixels"]
    else:
        call = f'model, zfnet.trace(model, x), "{layer}", {channel}, at, {rules!r}'
        lines.insert(0, "from zfnet.explorer.variants import Rules, project_variant")
        lines.insert(1, "from zfnet.receptive_field import cut")
        lines += [f"whole = project_variant({call})"]
        lines += ["patch = cut(whole, p.corner, p.pixels.shape[-1])"]
    lines += ["figure = plot.projection_figure(x, patch, whole, p.box[0].tolist(), title)"]
    name = f"{layer}-{channel}-{at[0]}-{at[1]}"
    return Shared(figure, title, _code(backend, image, lines, name), name)


def share_cover(
    backend: Backend, image: str, box: tuple[int, int, int, int], target: int | None
) -> Shared:
    """The image with a covered box, and the network's response in the title."""
    answer = backend.cover(image, box, target, [])
    box, target = tuple(answer["box"]), answer["target"]
    covered = cover(backend.images[image][0].cpu(), torch.tensor([box]), torch.zeros(3, 1, 1))
    classes, base = backend.model.classes, answer["baseline"]
    title = (
        f"{classes[target]}: probability {base['probability']:.3f}, covered "
        f"{answer['probability']:.3f}; most probable: {classes[answer['label']]}"
    )
    with plot.style():
        figure = plot.new_figure(4.5, 4.8)
        plot.show(figure.subplots(), plot.photograph(covered)[0], title)
    lines = [
        "from zfnet.occlusion import cover",
        f"covered = cover(x[0], torch.tensor([{list(box)}]), torch.zeros(3, 1, 1))",
        f"before, after = (model(image).softmax(1)[0, {target}] for image in (x, covered))",
        "label = model.classes[int(model(covered).argmax())]",
        f'title = f"{{model.classes[{target}]}}: probability {{before:.3f}}, covered "',
        'title += f"{after:.3f}; most probable: {label}"',
        "figure = plot.new_figure(4.5, 4.8)",
        "plot.show(figure.subplots(), plot.photograph(covered)[0], title)",
    ]
    name = "covered-" + "-".join(map(str, box))
    return Shared(figure, title, _code(backend, image, lines, name), name)


def share_explanation(backend: Backend, image: str, method: str, target: int | None) -> Shared:
    """The attribution map of one method."""
    from zfnet.attribution.registry import explain

    x = backend.images[image]
    a = explain(backend.model, x, method, target)
    label = backend.model.classes[int(a.target)]
    title = f"{method} for {label}"
    values = f"values from {float(a.map.min()):.3g} to {float(a.map.max()):.3g}"
    with plot.style():
        figure = plot.attribution_figure(x.cpu(), a.map.detach().cpu(), title, values)
    lines = [
        f'a = zfnet.explain(model, x, "{method}", {int(a.target)})',
        f"title = {title!r}",
        'values = f"values from {float(a.map.min()):.3g} to {float(a.map.max()):.3g}"',
        "figure = plot.attribution_figure(x, a.map.detach(), title, values)",
    ]
    name = f"{method}-{int(a.target)}"
    return Shared(figure, f"{title}; {values}", _code(backend, image, lines, name), name)


def _code(backend: Backend, image: str, lines: list[str], name: str) -> str:
    """A script: the network, the image, the given lines, and the picture."""
    label = backend.images.label(image)
    if image in backend.images.samples:
        source = f'zfnet.photograph("{label}")'
    else:
        source = repr(label)
    load = [f"model = {backend.source}" if backend.source else "# model: the network of this page"]
    if backend.source and backend.source.startswith("load_network("):
        load.insert(0, "from zfnet.networks import load_network")
    imports = [line for line in [*load, *lines] if line.startswith("from ")]
    rest = [line for line in [*load, *lines] if not line.startswith("from ")]
    body = [
        *(["import torch"] if any("torch." in line for line in rest) else []),
        "import zfnet",
        "from zfnet import plot",
        *imports,
        "",
        rest[0],
        f"x = zfnet.preprocess({source}, model.size)",
        *rest[1:],
        "with plot.style():",
        f'    figure.savefig("{name}.png", dpi={DPI})',
    ]
    return "\n".join(_with_style(body)) + "\n"


def _with_style(lines: list[str]) -> list[str]:
    """Draw inside the `with plot.style()` that saves: titles have the style's fonts."""
    start = lines.index("with plot.style():")
    first = next(i for i, line in enumerate(lines) if line.startswith("figure = "))
    drawing = [f"    {line}" for line in lines[first:start]]
    return [*lines[:first], "with plot.style():", *drawing, *lines[start + 1 :]]


def _rules_in_words(rules: Rules) -> str:
    words = {
        "guided": "guided backpropagation", "gradient": "gradient", "none": "no rectification",
    }  # fmt: skip
    changed = [words[rules.rectification]] if rules.rectification in words else []
    changed += [] if rules.switches else ["no switches"]
    changed += ["overwrite"] if rules.collision == "overwrite" else []
    changed += ["normalization inverted"] if rules.normalization else []
    return f" ({', '.join(changed)})" if changed else ""
