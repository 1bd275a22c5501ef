"""The headline table of the README: the numbers of this reproduction beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from reproduce.core.record import Record
from reproduce.site.gallery.contents import flatten
from reproduce.site.text import columns, number

LAYERS = range(1, 6)
CALTECH = {"pretrained": 7, "pretrained, layers 1-5 only": 5}  # layer by protocol


@dataclass(frozen=True)
class Records:
    """The records of a page by id, with the values of missing ones as None."""

    by_id: dict[str, Record]

    def ours(self, id: str, path: str) -> Any:
        """A measured value by its keys, as "group: name"."""
        return self._find(id, "measured", path)

    def paper(self, id: str, path: str) -> Any:
        """A published value by its keys."""
        return self._find(id, "paper", path)

    def _find(self, id: str, part: str, path: str) -> Any:
        values = flatten(getattr(self.by_id[id], part)) if id in self.by_id else {}
        named = {": ".join(keys).replace(" a class", " per class"): v for keys, v in values.items()}
        return named.get(path)


def rows(records: Iterable[Record]) -> list[tuple[str, str, str]]:
    """The rows (quantity, ours, paper) whose record exists.

    Args:
        records: The committed records.
    """
    found = Records({record.id: record for record in records})
    table = [
        _accuracy(found),
        *(_caltech(found, protocol, layer) for protocol, layer in CALTECH.items()),
        _by_layer(found),
        _gain(found),
        _speed(found, "occlusion, 1 image", "occlusion maps of an image"),
        _speed(found, "projection, all features", "projections of Figure 2's units"),
    ]
    return [row for row in table if row[1]]


def _accuracy(found: Records) -> tuple[str, str, str]:
    """Top-1 accuracy; the paper states the error."""
    ours = found.ours("accuracy", "top-1 accuracy, %: 1 crop")
    errors = found.paper("tab2", "error, %: val top-1, val top-5: ZFNet")
    paper = number(round(100 - errors[0], 1)) if errors else ""
    return "ImageNet validation, top-1 accuracy %", number(ours) if ours else "", paper


def _caltech(found: Records, protocol: str, layer: int) -> tuple[str, str, str]:
    """The accuracy of a softmax on frozen features."""
    name = f"Caltech-101 accuracy %, 30 images per class, softmax on layer {layer}"
    path = f"{protocol}: 30 per class"
    ours, paper = found.ours("tab4", path), found.paper("tab4", path)
    return name, number(ours) if ours else "", number(paper) if paper else ""


def _by_layer(found: Records) -> tuple[str, str, str]:
    """The accuracies of Table 7's SVM, layer by layer."""

    def accuracies(get: Callable[[str, str], Any]) -> str:
        values = [get("tab7", f"caltech101: SVM: layer {layer}") for layer in LAYERS]
        return ", ".join(f"{value[0]:.1f}" for value in values) if all(values) else ""

    name = f"Table 7: Caltech-101 accuracy %, SVM on layers {', '.join(map(str, LAYERS))}"
    return name, accuracies(found.ours), accuracies(found.paper)


def _gain(found: Records) -> tuple[str, str, str]:
    """What ZFNet gains over AlexNet; the paper states both errors."""
    ours = found.ours(
        "tab2", "gain in val top-1, points, with its 95 % interval: ZFNet beats AlexNet"
    )
    group = "error, %: val top-1, val top-5"
    networks = [
        found.paper("tab2", f"{group}: {name}") for name in ("AlexNet, the replica", "ZFNet")
    ]
    paper = number(round(networks[0][0] - networks[1][0], 1)) if all(networks) else ""
    classes = found.ours("tab2", "classes")
    name = f"Table 2: ZFNet over AlexNet, top-1 points ({classes} classes; paper: 1000)"
    return name, number(ours) if ours else "", paper


def _speed(found: Records, race: str, name: str) -> tuple[str, str, str]:
    """Seconds, and how much faster than the plain batched computation."""
    ours = found.ours("bench_speed", f"{race}: ours, seconds")
    ratio = found.ours("bench_speed", f"{race}: plain over ours")
    if not ours or not ratio:
        return name, "", ""
    device = found.by_id["bench_speed"].environment.get("device", "")
    text = f"{number(ours[0])} s; {number(round(ratio[0], 1))} × faster than the plain computation"
    return f"{name} ({device})", text, ""


def table(records: Iterable[Record]) -> str:
    """The rows as a Markdown table."""
    cells = [[name, ours, paper or "–"] for name, ours, paper in rows(records)]
    return columns(["", "ours", "paper"], cells)
