"""The table of docs/replication.md: what each figure of the paper costs at the paper's scale, and from what that is known."""

from __future__ import annotations

from pathlib import Path

from reproduce.core import costs
from reproduce.core.discovery import discover
from reproduce.core.figure import Figure
from reproduce.core.requirements import CORPORA, NAMES, can_use
from reproduce.site.gallery import PAPER
from reproduce.site.text import columns, number
from zfnet.training.config import load_config

MARKS = ("<!-- table: written by python -m reproduce replication -->", "<!-- end of table -->")
MODEL = "runs/imagenet/model.safetensors"
HEADER = [
    "",
    "command",
    "data",
    "PFLOP",
    "hours at 10 TFLOP/s",
    "hours on a GTX 580",
    "source",
    "result",
]
RECIPE = load_config(costs.ablations.PAPER_RECIPE)


def write(path: Path) -> Path:
    """Replace the text between MARKS in a page."""
    before, _, rest = path.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    path.write_text(f"{before}{MARKS[0]}\n\n{text()}\n{MARKS[1]}{after}", "utf-8")
    return path


def text() -> str:
    """The tables and how their numbers are derived."""
    figures = {name: discover()[name].FIGURE for name in PAPER}
    rows = [training_row(), *(row(figure) for figure in figures.values() if figure.scales)]
    analyses = [analysis_row(figure) for figure in figures.values() if not figure.scales]
    return "\n\n".join([
        "### What needs a GPU", columns(HEADER, rows), derivation(figures),
        "### What runs on the trained network", columns(["", "command", "data", "measured", "source", "result"], analyses),
    ]) + "\n"  # fmt: skip


def training_row() -> list[str]:
    """The network that the figures look into."""
    command = "`zfnet train configs/imagenet.yaml --data PATH`"
    source = "estimated: multiply-adds; the GTX 580's hours are the paper's 12 days"
    return [
        "**the network**",
        command,
        "ImageNet train, val",
        *hours(costs.paper_training()),
        source,
        "`runs/imagenet/`",
    ]


def row(figure: Figure) -> list[str]:
    """A figure with trainings, or of snapshots of one."""
    work = costs.operations(figure, "paper", "cuda", costs.CLASSES, costs.TRAIN)
    count = len(costs.trainings(figure, "paper", "cuda"))
    source = (
        f"estimated: multiply-adds of {count} trainings"
        if count
        else "estimated: multiply-adds of 8 searches"
    )
    return [title(figure), command(figure), data(figure), *hours(work), source, folder(figure)]


def analysis_row(figure: Figure) -> list[str]:
    """A figure that trains no network on ImageNet: what its committed record took."""
    record = costs.record_of(figure.id)
    if record is None:
        return [
            title(figure),
            command(figure),
            data(figure),
            "–",
            "not measured: this project lacks the data",
            folder(figure),
        ]
    device = record.environment["device"]
    source = f"record on {record.inputs['corpus']}, n = {record.n:,}, {device}"
    return [
        title(figure),
        command(figure),
        data(figure),
        f"{number(record.seconds)} s",
        source,
        folder(figure),
    ]


def hours(work: float) -> list[str]:
    """PFLOP, hours at the assumed rate, and hours at the rate of the authors' GPU."""
    return [
        number(work / 1e15),
        number(work / costs.GPU_FLOPS / 3600),
        number(work / costs.gtx_580_flops() / 3600),
    ]


def derivation(figures: dict[str, Figure]) -> str:
    """How the table's numbers follow from multiply-adds, and the trainings that several figures share."""
    macs, record = costs.multiply_adds(RECIPE), costs.record_of("tab3")
    assert record is not None
    together = {
        c for name in ("tab2", "tab3") for c in costs.trainings(figures[name], "paper", "cuda")
    }
    shared = sum(costs.training_operations(config, costs.TRAIN) for config in together)
    return "\n".join([
        f"- One forward pass of ZFNet on 224 x 224 pixels has {macs / 1e9:.3f} x 10⁹ multiply-adds (`zfnet describe`), of "
        f"{costs.FORWARD} floating-point operations (FLOP) each. Training costs three times that per image: the backward pass "
        "computes two gradients.",
        f"- PFLOP = {costs.TRAINING} x multiply-adds x {costs.TRAIN:,} images x 70 epochs, summed over a figure's networks. "
        "Decoding, augmentation and validation come on top.",
        f"- The authors trained in {costs.GTX_580_DAYS} days on one GTX 580 (section 3), so it sustained "
        f"{costs.gtx_580_flops() / 1e12:.2f} TFLOP/s on this network. The column scales by it.",
        f"- {costs.GPU_FLOPS / 1e12:.0f} TFLOP/s is an assumption, not a measurement. Measure your GPU with "
        "`zfnet train configs/imagenet.yaml --data PATH --dry-run`, which times real steps.",
        f"- On the CPU of this project, ZFNet trained at {costs.cpu_flops() / 1e9:.0f} GFLOP/s (Table 3's record: "
        f"{', '.join(record.measured['devices'])}). At that rate the network would take "
        f"{number(costs.paper_training() / costs.cpu_flops() / 3600)} hours.",
        f"- Tables 2 and 3 share trainings: both together take {number(shared / 1e15)} PFLOP. At paper scale Table 3 trains "
        "one seed per row.",
    ])  # fmt: skip


def title(figure: Figure) -> str:
    kind = "Figure" if figure.id.startswith("fig") else "Table"
    return f"{kind} {figure.id[3:]}"


def command(figure: Figure) -> str:
    """The command at the paper's scale; figures of `all` come with it."""
    if not figure.manual:
        return "`all` (above)"
    options = [
        ("scale", "--scale paper"),
        ("model", f"--model {MODEL}"),
        ("data", "--data PATH"),
        ("datasets", "--datasets SETS"),
    ]
    given = " ".join(text for option, text in options if can_use(figure, option))
    return f"`python -m reproduce run {figure.id} {given}`"


def data(figure: Figure) -> str:
    """The data that a figure needs at the paper's scale."""
    if "tree" in figure.inputs:
        return "ImageNet train" if "snapshots" in figure.inputs else "ImageNet train, val"
    sets = list(dict.fromkeys(NAMES[name] for name in figure.inputs if name in NAMES))
    if sets:
        return ", ".join(sets) + (", ImageNet train" if "pretraining" in figure.inputs else "")
    return "ImageNet val" if {"images", "top"} & set(figure.inputs) else "none"


def folder(figure: Figure) -> str:
    """Where the result is written, for a tree in a folder named imagenet."""
    corpus = figure.corpus if figure.corpus in CORPORA else "imagenet"
    return f"`figures/{corpus}{'@imagenet' * figure.uses_model}/{figure.id}`"
