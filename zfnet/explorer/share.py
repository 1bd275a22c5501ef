"""What "save" writes: a picture with its caption, and the lines of Python that reproduce it.

Each view has one function that draws the picture and writes the code side by side. A test runs the
code and compares the pictures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from matplotlib.figure import Figure

from zfnet import plot
from zfnet.data import no_progress
from zfnet.explorer.backend import Backend
from zfnet.explorer.images import GIVEN, WEBCAM
from zfnet.explorer.query import Unit
from zfnet.explorer.variants import Rules, project_variant
from zfnet.occlusion import cover
from zfnet.projection import project
from zfnet.receptive_field import cut

DPI = 150
METHOD_NAMES = {
    "guided": "guided backpropagation", "gradient": "gradient", "none": "no rectification",
}  # fmt: skip


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
        self.figure.savefig(buffer, format="png", dpi=DPI, metadata=metadata)
        return buffer.getvalue()


def share_unit(backend: Backend, image: str, unit: Unit, rules: Rules) -> Shared:
    """A unit's receptive field and projection."""
    model, x, layer, channel = backend.model, backend.images[image], unit.layer, unit.channel
    crop = project(model, x, layer, channel, unit.at, crop=True)
    at, box = tuple(crop.position[0].tolist()), crop.box[0].tolist()
    title = (
        f"{layer}/{channel} at row {at[0]}, column {at[1]}: "
        f"activation {float(crop.activation[0]):.3f}{_changed_rules(rules)}"
    )
    imports = []
    lines = [f'crop = zfnet.project(model, x, "{layer}", {channel}, {at}, crop=True)']
    if rules == Rules():
        pixels, patch = project(model, x, layer, channel, at).pixels, crop.pixels
        lines += [
            f'pixels = zfnet.project(model, x, "{layer}", {channel}, {at}).pixels',
            "patch = crop.pixels",
        ]
    else:
        pixels = project_variant(model, backend.trace(image), layer, channel, at, rules)
        patch = cut(pixels, crop.corner, crop.pixels.shape[-1])
        imports = [
            "from zfnet.explorer.variants import Rules, project_variant",
            "from zfnet.receptive_field import cut",
        ]
        lines += [
            f"rules, trace = {_rules_code(rules)}, zfnet.trace(model, x)",
            f'pixels = project_variant(model, trace, "{layer}", {channel}, {at}, rules)',
            "patch = cut(pixels, crop.corner, crop.pixels.shape[-1])",
        ]
    figure = plot.projection_figure(x.cpu(), patch.cpu(), pixels.cpu(), box, title)
    lines += [
        f"title = {_quoted(title)}",
        "figure = plot.projection_figure(x, patch, pixels, crop.box[0].tolist(), title)",
    ]
    name = f"{layer}-{channel}-{at[0]}-{at[1]}"
    return Shared(figure, title, _script(backend, image, imports, lines, name), name)


def share_cover(
    backend: Backend, image: str, box: tuple[int, int, int, int], target: int | None
) -> Shared:
    """The image with a covered box, and the network's response in the title."""
    answer = backend.cover(image, box, target, [])
    box, target, classes = answer["box"], answer["target"], backend.model.classes
    x = backend.images[image]
    covered = cover(x[0], torch.tensor([box], device=x.device), torch.zeros_like(x[0]))
    title = (
        f"{classes[target]}: probability {answer['baseline']['probability']:.3f}, covered "
        f"{answer['probability']:.3f}\nmost probable: {classes[answer['label']]}"
    )
    with plot.style():
        figure = plot.new_figure(4.5, 4.8)
        plot.show(figure.subplots(), plot.photograph(covered.cpu())[0], plot.escape_math(title))
    imports = [
        "import torch",
        "from zfnet.occlusion import cover",
        "from zfnet.outputs import probability_function",
    ]
    lines = [
        f"covered = cover(x[0], torch.tensor([{box}]), torch.zeros_like(x[0]))",
        "with torch.no_grad():",
        "    before, after = probability_function(model)(model(torch.cat([x, covered])))",
        f"name, label = model.classes[{target}], model.classes[int(after.argmax())]",
        f'title = f"{{name}}: probability {{before[{target}]:.3f}}, covered '
        f'{{after[{target}]:.3f}}\\nmost probable: {{label}}"',
        "with plot.style():",
        "    figure = plot.new_figure(4.5, 4.8)",
        "    plot.show(figure.subplots(), plot.photograph(covered)[0], plot.escape_math(title))",
    ]
    name = "covered-" + "-".join(map(str, box))
    caption = title.replace("\n", "; ")
    return Shared(figure, caption, _script(backend, image, imports, lines, name), name)


def share_sweep(
    backend: Backend,
    image: str,
    size: int,
    stride: int,
    target: int | None,
    progress: Callable = no_progress,
) -> Shared:
    """The occlusion maps of a sweep."""
    o = backend.results.occlusion(image, size, stride, target, progress)
    target, classes = int(o.target), backend.model.classes
    maps = {
        "probability": o.probability.cpu().numpy(),
        "logit": o.logit.cpu().numpy(),
    }
    title = f"{classes[target]}, covered by a square of {size} pixels at steps of {stride}"
    x, labels = backend.images[image].cpu(), o.label.cpu().numpy()
    figure = plot.occlusion_figure(x, maps, labels, classes, size, stride, title)
    lines = [
        f"size, stride = {size}, {stride}",
        f"o = zfnet.occlude(model, x, {target}, size=size, stride=stride)",
        'maps = {"probability": o.probability.numpy(), "logit": o.logit.numpy()}',
        f"labels, title = o.label.numpy(), {_quoted(title)}",
        "figure = plot.occlusion_figure(x, maps, labels, model.classes, size, stride, title)",
    ]
    name = f"occlusion-{target}-{size}-{stride}"
    return Shared(figure, title, _script(backend, image, [], lines, name), name)


def share_comparison(
    backend: Backend,
    image: str,
    methods: Sequence[str],
    target: int | None,
    progress: Callable = no_progress,
) -> Shared:
    """The attribution maps of two methods next to the image."""
    x, maps = backend.images[image], []
    for method in methods:
        a = backend.results.attribution(image, method, target, progress)
        target = int(a.target[0])
        maps.append(a.map.detach().cpu())
    assert target is not None
    label = backend.model.classes[target]
    with plot.style():
        figure = plot.new_figure(8.4, 3.3)
        axes = figure.subplots(1, 3)
        plot.show(axes[0], plot.photograph(x.cpu())[0], plot.escape_math(label))
        for axis, method, values in zip(axes[1:], methods, maps, strict=True):
            plot.show(axis, plot.attribution_image(values)[0][0], method)
    names = ", ".join(f'"{method}"' for method in methods)
    lines = [
        "with plot.style():",
        "    figure = plot.new_figure(8.4, 3.3)",
        "    axes = figure.subplots(1, 3)",
        f"    label = plot.escape_math(model.classes[{target}])",
        "    plot.show(axes[0], plot.photograph(x)[0], label)",
        f"    for axis, method in zip(axes[1:], [{names}]):",
        f"        a = zfnet.explain(model, x, method, {target})",
        "        plot.show(axis, plot.attribution_image(a.map.detach())[0][0], method)",
    ]
    name = f"{'-'.join(methods)}-{target}"
    caption = f"{' and '.join(methods)} for {label}"
    return Shared(figure, caption, _script(backend, image, [], lines, name), name)


def _script(backend: Backend, image: str, imports: list[str], lines: list[str], name: str) -> str:
    """A script: the imports, the network, the image, the given lines, and the file."""
    label, source = _quoted(backend.images.label(image)), backend.source
    photograph = f"zfnet.photograph({label})" if image in backend.images.samples else label
    read = f"x = zfnet.preprocess({photograph}, model.size)"
    if image == GIVEN or image.startswith(WEBCAM):
        read = (
            f"# x: the {'webcam frame' if image != GIVEN else 'image'} of this page, preprocessed"
        )
    if source and source.startswith("load_network("):
        imports = [*imports, "from zfnet.networks import load_network"]
    plain = [line for line in imports if line.startswith("import ")]
    others = sorted(line for line in imports if not line.startswith("import "))
    load = f"model = {source}" if source else "# model: the network of this page"
    return "\n".join([
        *plain, "import zfnet", "from zfnet import plot", *others, "", load,
        read, *lines,
        f'figure.savefig("{name}.png", dpi={DPI})', "",
    ])  # fmt: skip


def _quoted(text: str) -> str:
    """A Python string in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _rules_code(rules: Rules) -> str:
    """The constructor of rules with what differs from the paper's."""
    changed = {
        field.name: getattr(rules, field.name)
        for field in fields(rules)
        if getattr(rules, field.name) != field.default
    }
    arguments = [
        f"{name}={_quoted(value) if isinstance(value, str) else value}"
        for name, value in changed.items()
    ]
    return f"Rules({', '.join(arguments)})"


def _changed_rules(rules: Rules) -> str:
    """The changed rules in words, in parentheses."""
    changed = [] if rules.rectification == "deconvnet" else [METHOD_NAMES[rules.rectification]]
    changed += [] if rules.switches else ["no switches"]
    changed += ["overwrite"] if rules.collision == "overwrite" else []
    changed += ["normalization inverted"] if rules.normalization else []
    return f" ({', '.join(changed)})" if changed else ""
