"""The table of docs/replication.md: what each figure of the paper costs at the paper's scale."""

from __future__ import annotations

from pathlib import Path

from reproduce import costs
from reproduce.core.discovery import discover
from reproduce.core.figure import Figure
from reproduce.core.requirements import CORPUS_NAMES, DATASET_NAMES, supports
from reproduce.paper import ablations
from reproduce.site.gallery import PAPER
from reproduce.site.text import columns, number
from zfnet.training.config import load_config

MARKS = ("<!-- table: written by python -m reproduce replication -->", "<!-- end of table -->")
MODEL = "runs/imagenet/model.safetensors"
TRAINING_HEADER = [
    "",
    "command",
    "data",
    "PFLOP",
    "hours at 10 TFLOP/s",
    "hours on a GTX 580",
    "source",
    "result",
]
ANALYSIS_HEADER = ["", "command", "data", "measured", "source", "result"]


def write(path: Path) -> Path:
    """Replace the text between MARKS in a page."""
    before, _, rest = path.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    path.write_text(f"{before}{MARKS[0]}\n\n{text()}\n{MARKS[1]}{after}", "utf-8")
    return path


def text() -> str:
    """The tables, and how their numbers are derived."""
    scripts = discover()
    figures = [scripts[name].FIGURE for name in PAPER]
    trainings = [_network_row(), *(_training_row(figure) for figure in figures if figure.scales)]
    analyses = [_analysis_row(figure) for figure in figures if not figure.scales]
    parts = [
        "### What needs a GPU",
        columns(TRAINING_HEADER, trainings),
        _derivation(scripts["tab2"].FIGURE, scripts["tab3"].FIGURE),
        "### What runs on the trained network",
        columns(ANALYSIS_HEADER, analyses),
    ]
    return "\n\n".join(parts) + "\n"


def _network_row() -> list[str]:
    """The network that the figures analyze."""
    command = "`zfnet train configs/imagenet.yaml --data PATH`"
    source = "estimated: multiply-adds; the GTX 580's hours are the paper's 12 days"
    hours = _hours(costs.paper_training())
    return ["**the network**", command, "ImageNet train, val", *hours, source, "`runs/imagenet/`"]


def _training_row(figure: Figure) -> list[str]:
    """A figure with trainings, or that searches the snapshots of one."""
    count = len(costs.trainings(figure, "paper"))
    work = f"{count} trainings" if count else f"{len(ablations.PAPER_SNAPSHOTS)} searches"
    hours = _hours(costs.operations(figure, "paper"))
    source = f"estimated: multiply-adds of {work}"
    return [*_description(figure), *hours, source, _folder(figure)]


def _analysis_row(figure: Figure) -> list[str]:
    """A figure that trains no network on ImageNet: the seconds of its committed record."""
    record = costs.committed_record(figure.id)
    if record is None:
        measured = ["–", "not measured: this project lacks the data"]
    else:
        corpus, device = record.inputs["corpus"], record.environment["device"]
        source = f"record on {corpus}, n = {record.n:,}, {device}"
        measured = [f"{number(record.seconds)} s", source]
    return [*_description(figure), *measured, _folder(figure)]


def _hours(work: float) -> list[str]:
    """PFLOP, hours at the assumed rate, and hours at the rate of the authors' GPU."""
    return [
        number(work / 1e15),
        number(work / costs.GPU_FLOPS / 3600),
        number(work / costs.gtx_580_flops() / 3600),
    ]


def _derivation(tab2: Figure, tab3: Figure) -> str:
    """How the numbers follow from multiply-adds."""
    macs = costs.multiply_adds(load_config(costs.ablations.PAPER_RECIPE))
    record = costs.committed_record("tab3")
    assert record is not None
    configs = []  # without repetitions: Table 3 uses rows of Table 2
    for config in (c for figure in (tab2, tab3) for c in costs.trainings(figure, "paper")):
        configs += [config] if config not in configs else []
    both = sum(costs.training_operations(config, costs.TRAIN) for config in configs)
    cpu = costs.cpu_flops()
    cpu_hours = number(costs.paper_training() / cpu / 3600)
    return "\n".join([
        f"- One forward pass of ZFNet on 224 x 224 pixels has {macs / 1e9:.3f} x 10⁹ multiply-adds "
        f"(`zfnet describe`), of {costs.FORWARD} floating-point operations (FLOP) each. Training "
        "costs three times that per image: the backward pass computes two gradients.",
        f"- PFLOP = {costs.TRAINING} x multiply-adds x {costs.TRAIN:,} images x 70 epochs, summed "
        "over a figure's networks. Decoding, augmentation and validation are not counted.",
        f"- The authors trained for {costs.GTX_580_DAYS} days on one GTX 580 (section 3), so it "
        f"sustained {costs.gtx_580_flops() / 1e12:.2f} TFLOP/s on this network. The column scales "
        "by it.",
        f"- {costs.GPU_FLOPS / 1e12:.0f} TFLOP/s is an assumption, not a measurement. Measure your "
        "GPU with `zfnet train configs/imagenet.yaml --data PATH --dry-run`, which times real "
        "steps.",
        f"- On the CPU of this project, ZFNet trained at {cpu / 1e9:.0f} GFLOP/s (Table 3's "
        f"record: {', '.join(record.measured['devices'])}). At that rate the network would take "
        f"{cpu_hours} hours.",
        f"- Tables 2 and 3 share trainings: both together take {number(both / 1e15)} PFLOP. At "
        "paper scale Table 3 trains five seeds of ZFNet and two of AlexNet.",
    ])  # fmt: skip


def _description(figure: Figure) -> list[str]:
    """The first three columns: name, command, data."""
    kind = "Figure" if figure.id.startswith("fig") else "Table"
    return [f"{kind} {figure.id[3:]}", _command(figure), _data(figure)]


def _command(figure: Figure) -> str:
    """The command at the paper's scale; `all` makes the figures that are not manual."""
    if not figure.manual:
        return "`all` (above)"
    options = {
        "scale": "--scale paper",
        "model": f"--model {MODEL}",
        "data": "--data PATH",
        "datasets": "--datasets SETS",
    }
    used = " ".join(text for option, text in options.items() if supports(figure, option))
    return f"`python -m reproduce run {figure.id} {used}`"


def _data(figure: Figure) -> str:
    """The data that a figure needs at the paper's scale."""
    if "tree" in figure.inputs:
        return "ImageNet train, val"
    names = list(dict.fromkeys(DATASET_NAMES[n] for n in figure.inputs if n in DATASET_NAMES))
    if names:
        return ", ".join(names + ["ImageNet train"] * ("pretraining" in figure.inputs))
    return "ImageNet val" if figure.uses_images else "none"


def _folder(figure: Figure) -> str:
    """Where the result is written, for a tree in a folder named imagenet."""
    corpus = figure.corpus if figure.corpus in CORPUS_NAMES else "imagenet"
    return f"`figures/{corpus}{'@imagenet' * figure.uses_model}/{figure.id}`"
