"""What Figure 6 measures of its three networks, and the claims about them."""

from __future__ import annotations

from typing import Any

from reproduce.core.claims import higher
from reproduce.paper import filter_statistics as stats
from reproduce.paper.filter_training import Arrays
from zfnet.analysis.intervals import mean_interval

FREE, ALEXNET, OURS = "ZFNet, not clipped", "AlexNet", "ZFNet"
RUNS = {FREE: "ZFNet", ALEXNET: "AlexNet", OURS: "ZFNet"}  # panel -> row of Table 3
ACCURACY = "val top-1, %"
LARGEST = "largest RMS of a filter of layer 1"
BY_EPOCH = "largest RMS of layer 1 over the median, by epoch"
DOMINANCE = "largest RMS of layer 1 over the median, at the end"
DEAD = "dead filters of layer 1: flat or never trained"
MIDDLE = "energy of layer 1's filters in middle frequencies, %, with 95 % interval"
ALIASING = "energy of layer-2 projections in high frequencies, %, with 95 % interval"
DIVERGED = "trainings that diverged"


def measure(arrays: Arrays, limits: tuple[float, float], seed: int) -> dict[str, Any]:
    """The measured numbers by network.

    Args:
        arrays: The arrays of `train_filters`, by network.
        limits: Frequencies between low, middle and high, in cycles per pixel.
        seed: Seed of the intervals.
    """
    filters = {name: arrays[f"{name}.filters"][-1] for name in RUNS}
    bands = {
        name: stats.band_shares(stats.center(of_run), limits) for name, of_run in filters.items()
    }
    flat = {name: stats.flat(of_run) for name, of_run in filters.items()}
    untrained = {
        name: stats.untrained(of_run, arrays[f"{name}.initial"]) for name, of_run in filters.items()
    }
    by_epoch = {name: stats.dominance(arrays[f"{name}.filters"]) for name in RUNS}
    diverged = {name: str(arrays[f"{name}.diverged"]) for name in RUNS}
    high = {name: arrays[f"{name}.high"] for name in RUNS if arrays[f"{name}.high"].size}
    return {
        ACCURACY: {name: 100 - float(arrays[f"{name}.error"]) for name in RUNS},
        DIVERGED: {name: where for name, where in diverged.items() if where},
        LARGEST: {name: float(stats.rms(of_run).max()) for name, of_run in filters.items()},
        DOMINANCE: {name: ratios[-1] for name, ratios in by_epoch.items()},
        BY_EPOCH: by_epoch,
        "epochs": {name: arrays[f"{name}.epochs"].tolist() for name in RUNS},
        DEAD: {name: int((flat[name] | untrained[name]).sum()) for name in RUNS},
        "flat filters of layer 1": {name: int(flat[name].sum()) for name in RUNS},
        "filters of layer 1 that never trained": {
            name: int(untrained[name].sum()) for name in RUNS
        },
        "maps of layers 1 and 2 that no image excites": {
            name: [int(arrays[f"{name}.dead.{layer}"].sum()) for layer in ("conv1", "conv2")]
            for name in RUNS
        },
        "energy of layer 1's filters in low, middle, high frequencies, %": {
            name: [float(v) for v in 100 * shares.mean(0)] for name, shares in bands.items()
        },
        MIDDLE: {n: mean_interval(100 * s[:, 1], seed=seed) for n, s in bands.items()},
        ALIASING: {n: mean_interval(100 * s, seed=seed) for n, s in high.items()},
    }


def judge_filters(
    measured: dict, count: int, factor: float
) -> tuple[dict[str, bool | None], dict[str, str]]:
    """Judge the claims.

    Args:
        measured: The numbers of `measure`.
        count: Number of filters of layer 1.
        factor: The smallest ratio of dominances that counts as a difference.

    Returns:
        The judgments, and for each claim what was measured.
    """
    ratio, dead, middle, high = (measured[key] for key in (DOMINANCE, DEAD, MIDDLE, ALIASING))
    larger = ratio[FREE] / ratio[OURS]
    differs = max(larger, 1 / larger) > factor
    judgments: dict[str, bool | None] = {
        "the largest filter stands out more without clipping": larger > 1 if differs else None,
        "AlexNet has more dead filters in layer 1 than ZFNet": stats.larger_share(
            dead[ALEXNET], count, dead[OURS], count
        ),
        "ZFNet's layer-1 filters have more energy in middle frequencies than AlexNet's": higher(
            middle[OURS], middle[ALEXNET]
        ),
        "AlexNet's layer-2 projections have more energy in high frequencies than ZFNet's": higher(
            high.get(ALEXNET), high.get(OURS)
        ),
    }
    evidence = (
        f"the largest filter is {ratio[FREE]:.1f} times the median without clipping, and "
        f"{ratio[OURS]:.1f} times with it",
        f"{dead[ALEXNET]} of {count} filters are dead in AlexNet, and {dead[OURS]} in ZFNet",
        f"ZFNet's filters have {_percent(middle[OURS])} of their energy in middle frequencies, "
        f"and AlexNet's {_percent(middle[ALEXNET])}",
        f"AlexNet's layer-2 projections have {_percent(high.get(ALEXNET))} of their energy in high "
        f"frequencies, and ZFNet's {_percent(high.get(OURS))}",
    )
    return judgments, dict(zip(judgments, evidence, strict=True))


def _percent(interval: list[float] | None) -> str:
    """A percentage with its interval; "an unknown share" without measurements."""
    if interval is None:
        return "an unknown share"
    mean, *bounds = (f"{value:.1f}" for value in interval)
    return f"{mean} [{', '.join(bounds)}] %" if bounds else f"{mean} %"


def summarize(measured: dict, count: int) -> str:
    """The finding in a sentence."""
    ratio, dead = measured[DOMINANCE], measured[DEAD]
    return (
        f"Without clipping, the largest filter of layer 1 is {ratio[FREE]:.1f} times the median, "
        f"and with clipping {ratio[OURS]:.1f} times; AlexNet has {dead[ALEXNET]} dead filters of "
        f"{count}, and ZFNet {dead[OURS]}."
    )
