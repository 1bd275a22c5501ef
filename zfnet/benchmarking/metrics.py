"""The metrics by name."""

from __future__ import annotations

from collections.abc import Sequence

from zfnet.benchmarking.base import Metric
from zfnet.benchmarking.consistency import completeness, max_sensitivity, sensitivity_n
from zfnet.benchmarking.localization import energy, pointing
from zfnet.benchmarking.removal import deletion, insertion, road
from zfnet.benchmarking.sanity import cascading, independent

METRICS = {
    metric.name: metric
    for metric in (
        Metric("pointing", pointing, unit="share of hits", needs_mask=True),
        Metric("energy", energy, unit="share of positive values", needs_mask=True),
        Metric("insertion", insertion, unit="mean probability"),
        Metric("deletion", deletion, "lower", "mean probability"),
        Metric("road", road, "lower", "accuracy"),
        Metric("sensitivity_n", sensitivity_n, unit="correlation"),
        Metric("max_sensitivity", max_sensitivity, "lower", "relative change"),
        Metric("cascading", cascading, "lower", "rank correlation"),
        Metric("independent", independent, "lower", "rank correlation"),
        Metric("completeness", completeness, "lower", "logits"),
    )
}
COSTS = ("speed", "memory")  # measured while a method computes its maps
GROUPS = {"sanity": ("cascading", "independent")}
DEFAULT = ("pointing", "insertion", "deletion", "cascading")


def resolve_metrics(metrics: Sequence[str | Metric]) -> tuple[list[Metric], list[str]]:
    """Return the metrics that score maps, and the requested names in `COSTS`.

    Args:
        metrics: Names of `METRICS`, `COSTS` or `GROUPS`, and metrics of your own.

    Raises:
        ValueError: If a name is unknown or given twice, or there are no metrics.

    Example:
        >>> scores, costs = resolve_metrics(["pointing", "sanity", "speed"])
        >>> [metric.name for metric in scores], costs
        (['pointing', 'cascading', 'independent'], ['speed'])
    """
    chosen: list[str | Metric] = []
    for metric in [metrics] if isinstance(metrics, (str, Metric)) else metrics:
        chosen += GROUPS.get(metric, (metric,)) if isinstance(metric, str) else (metric,)
    names = [metric if isinstance(metric, str) else metric.name for metric in chosen]
    if unknown := [m for m in chosen if isinstance(m, str) and m not in {*METRICS, *COSTS}]:
        available = ", ".join([*METRICS, *COSTS, *GROUPS])
        raise ValueError(f"unknown metrics: {', '.join(unknown)}; available: {available}")
    if not chosen or len(set(names)) < len(names):
        raise ValueError(f"each metric must be given once, and at least one, got {names}")
    scores = [METRICS[m] if isinstance(m, str) else m for m in chosen if m not in COSTS]
    return scores, [name for name in names if name in COSTS]
