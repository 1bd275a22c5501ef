"""`benchmark`: score attribution methods on a network and images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zfnet.analysis.intervals import mean_interval
from zfnet.attribution.custom import Method
from zfnet.benchmarking.base import Case, Metric
from zfnet.benchmarking.controls import CONTROLS, MASK, random_map, true_mask
from zfnet.benchmarking.cost import peak_memory, timed
from zfnet.benchmarking.data import Selection, select_images
from zfnet.benchmarking.guard import guarded_call, method_identity
from zfnet.benchmarking.methods import resolve_methods
from zfnet.benchmarking.metrics import DEFAULT, resolve_metrics
from zfnet.benchmarking.progress_file import ProgressFile, fingerprint
from zfnet.benchmarking.table import BenchmarkTable, Row
from zfnet.data import no_progress
from zfnet.graph import UnsupportedNetwork
from zfnet.model import device_of, evaluating
from zfnet.validation import check_positive

EXPLAIN = "explain"  # the name under which the cost and state of maps are kept


def benchmark(
    model: nn.Module,
    methods: Sequence[str | Method] | Mapping[str, str | Method] | None = None,
    data: Any = "scenes",
    metrics: Sequence[str | Metric] = DEFAULT,
    *,
    limit: int = 100,
    target: str = "auto",
    correct_only: bool = False,
    controls: bool = True,
    batch: int = 25,
    seed: int = 0,
    boxes: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Callable = no_progress,
) -> BenchmarkTable:
    """Score attribution methods on a network and images.

    Args:
        model: Any network that returns logits.
        methods: Names of `zfnet.METHODS` and functions `method(model, x, target)` that return
            (N, 1, H, W) or (N, C, H, W); a mapping gives them other names. None takes all of
            `zfnet.METHODS`. A method that does not apply to the network is in `skipped`.
        data: "scenes"; "shortcut", scenes whose tag alone shows the class, with the tag's mask, or
            "shortcut-object", the same with the object's mask; the path of a tree
            `<class>/*.JPEG`; or a Dataset of (x, label[, mask]).
        metrics: Names of `zfnet.benchmarking.METRICS`, "speed", "memory", "sanity" (cascading and
            independent), and `Metric` objects.
        limit: The number of images. A larger set is sampled at random, by `seed`.
        target: "label" explains each image's label, "predicted" the predicted class; "auto" takes
            the label, but the predicted class for drawn data whose classes are not the network's.
        correct_only: Whether to leave out images that the network gets wrong: there the image may
            hold no evidence for the label.
        controls: Whether to add maps with a known truth: a random map, the center, an edge
            detector and, where the data has masks, the true mask.
        batch: The number of images explained at once, and the largest number per forward pass of
            a metric. It bounds the memory.
        seed: Seed of all random numbers.
        boxes: For a tree, a CSV file of boxes, which become the masks; see
            `zfnet.benchmarking.load_boxed`. Images without a box are left out.
        resume: A file that keeps finished parts. An interrupted benchmark continues from it. A
            changed function is scored again; after a change of what it calls, delete the file.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The table, with one row per method and metric.

    Raises:
        ValueError: If an argument is wrong, a method returns another shape, a label is not an
            output of the network, or a metric needs masks that the data does not have.

    Example:
        >>> import torch, zfnet
        >>> model = zfnet.mnist()
        >>> data = [(torch.rand(3, 28, 28), i) for i in range(4)]
        >>> brightness = lambda model, x, target: x.mean(1, keepdim=True)
        >>> methods = {"saliency": "saliency", "mine": brightness}
        >>> table = zfnet.benchmark(model, methods, data, metrics=["deletion"])
        >>> table.methods
        ['saliency', 'mine', 'random map', 'center', 'edge detector']
    """
    check_positive(limit=limit, batch=batch)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    named, scores, costs = resolve_methods(methods, batch), *resolve_metrics(metrics)
    began = time.perf_counter(), time.process_time()
    images = select_images(
        model, data, limit=limit, target=target, correct_only=correct_only, batch=batch, seed=seed,
        boxes=boxes, progress=progress,
    )  # fmt: skip
    if (needy := [m.name for m in scores if m.needs_mask]) and not images.has_masks:
        raise ValueError(
            f"{', '.join(needy)} need masks, which {images.name} does not have; let the data yield "
            "(x, label, mask), or leave them out"
        )
    run = _Run(model, images, scores, batch, seed, costs, resume)
    chosen = named | (_controls(named) if controls else {})
    with evaluating(model):
        with_mask = controls and images.has_masks and MASK not in named
        run.all_batches(chosen, with_mask=with_mask, progress=progress)
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    return run.table({*chosen, MASK} - set(named), spent)


def _controls(named: Mapping[str, Method]) -> dict[str, Method]:
    return {name: control for name, control in CONTROLS.items() if name not in named}


@dataclass(eq=False)
class _Run:
    """One benchmark while it runs: the parts of each method, metric and batch of images."""

    model: nn.Module
    images: Selection
    metrics: list[Metric]
    batch: int
    seed: int
    costs: list[str]
    resume: str | Path | None

    def __post_init__(self):
        self.parts: dict[tuple[str, str], list[dict]] = {}
        self.skipped: dict[str, str] = {}
        self.empty_masks = 0
        key = fingerprint(self.model, self.seed, self.batch)
        self.file = ProgressFile(self.resume, key)

    def all_batches(
        self, methods: dict[str, Method], *, with_mask: bool, progress: Callable
    ) -> None:
        """Score all methods on all images, batch by batch; with masks, the true mask too."""
        names = [*methods, *([MASK] if with_mask else [])]
        count = len(self.images.indices)
        numbers = range(-(-count // self.batch))
        jobs = [(number, name) for number in numbers for name in names]
        blank = None
        for number, name in progress(jobs, total=len(jobs), desc="scoring"):
            if name == names[0]:
                blank = self.case(number)
            assert blank is not None
            method = methods[name] if name in methods else true_mask(blank.mask)
            self.score(replace(blank, name=name, method=method), number)

    def case(self, number: int) -> Case:
        """Return a batch of images, without a method yet."""
        rows = slice(number * self.batch, (number + 1) * self.batch)
        x, mask = self.images.read(self.images.indices[rows])
        device = device_of(self.model)
        x, target = x.to(device), self.images.target[rows].to(device)
        if mask is not None:
            mask = mask.to(device)
            self.empty_masks += int((~mask.flatten(1).any(1)).sum())
        blank = torch.zeros_like(x[:, :1])
        return Case(self.model, x, target, blank, mask, random_map, "", self.seed, self.batch)

    def score(self, case: Case, number: int) -> None:
        """Score one method on one batch, or take what the progress file has."""
        if case.name in self.skipped:
            return
        with_memory = "memory" in self.costs and number == 0
        keys = {EXPLAIN: self._key(case, EXPLAIN, with_memory)}
        keys |= {m.name: self._key(case, m.name, sorted(m.options.items())) for m in self.metrics}
        done = {m: part for m, key in keys.items() if (part := self.file.get(key))}
        try:
            if len(done) < len(keys):
                case, done[EXPLAIN] = self.explain(case, number)
            for metric in self.metrics:
                if metric.name not in done:
                    done[metric.name] = self.apply(metric, case)
        except UnsupportedNetwork as error:
            self.skipped[case.name] = str(error)
            self.parts = {k: v for k, v in self.parts.items() if k[0] != case.name}
            return
        for metric, part in done.items():
            self.parts.setdefault((case.name, metric), []).append(part)
            self.file.put(keys[metric], part)

    def explain(self, case: Case, number: int) -> tuple[Case, dict]:
        """Compute the maps of a batch, their state and cost."""
        device = case.x.device
        call = partial(guarded_call, case.method, case.name, case.model)
        one = (case.x[:1], case.target[:1])
        if "speed" in self.costs and number == 0:
            call(*one)  # warms up: imports, caches and choices of kernels
        attribution, seconds, cpu = timed(partial(call, case.x, case.target), device)
        raw = attribution.map
        memory = float("nan")
        if "memory" in self.costs and number == 0:
            memory = peak_memory(partial(call, *one), device)
        finite = raw.isfinite().flatten(1).all(1)
        maps = raw.where(finite[:, None, None, None], 0.0)
        flat = maps.flatten(1)
        constant = (flat.amax(1) == flat.amin(1)) & finite
        state = {"constant": int(constant.sum()), "not_finite": int((~finite).sum())}
        per_image = [seconds / len(raw)] * len(raw)
        part = {"values": per_image, "seconds": seconds, "cpu": cpu, "memory": memory, **state}
        return replace(case, map=maps, pixels=attribution.pixels), part

    def apply(self, metric: Metric, case: Case) -> dict:
        """Score a batch by a metric."""
        values, seconds, _ = timed(lambda: metric(case), case.x.device)
        if tuple(values.shape) != (len(case.x),):
            raise ValueError(
                f"metric {metric.name} must return ({len(case.x)},), got {tuple(values.shape)}"
            )
        return {"values": values.double().cpu().tolist(), "seconds": seconds}

    def table(self, controls: set[str], spent: tuple[float, float]) -> BenchmarkTable:
        """Collect all parts."""
        names = list(dict.fromkeys(name for name, _ in self.parts))
        if not names:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())
            raise ValueError(f"no method applies to the network: {reasons}")
        rows, values = [], {}
        for name in sorted(names, key=lambda n: n in controls):
            for metric in [*self.metrics, *(_cost_metric(c) for c in self.costs)]:
                row, values[name, metric.name] = self._row(name, metric, name in controls)
                rows.append(row)
        info = {
            "data": self.images.name, "images": len(self.images.indices),
            "target": self.images.explained, "candidates": self.images.candidates,
            "empty_masks": self.empty_masks,
            "batch": self.batch, "seed": self.seed, "seconds": spent[0], "cpu_seconds": spent[1],
            "threads": torch.get_num_threads(), "torch": torch.__version__,
        }  # fmt: skip
        return BenchmarkTable(tuple(rows), values, self.skipped, info)

    def _row(self, name: str, metric: Metric, control: bool) -> tuple[Row, np.ndarray]:
        explained = self.parts[name, EXPLAIN]
        memory = explained[0]["memory"]
        if metric.name == "memory":
            scored, values = explained, np.array([memory])
        else:
            scored = explained if metric.name == "speed" else self.parts[name, metric.name]
            values = np.concatenate([part["values"] for part in scored])
        valid = values[np.isfinite(values)]
        mean, low, high = float("nan"), float("nan"), float("nan")
        if len(valid):
            mean, *ends = mean_interval(valid)
            if metric.name == "speed":  # all images of a batch have the same value
                _, *ends = mean_interval(values[:: self.batch])
            low, high = ends or (low, high)
        images = len(self.images.indices)
        row = Row(
            name, metric.name, mean, low, high, len(valid), images,
            sum(part["constant"] for part in explained),
            sum(part["not_finite"] for part in explained),
            sum(part["seconds"] for part in explained) / images,
            sum(part["cpu"] for part in explained) / images, memory,
            sum(part["seconds"] for part in scored), metric.unit, metric.better, control,
        )  # fmt: skip
        return row, values

    def _key(self, case: Case, metric: str, options: object) -> str:
        mask = "" if case.mask is None else case.mask
        identity = method_identity(case.method)
        return self.file.key(case.name, identity, metric, options, case.x, case.target, mask)


def _cost_metric(name: str) -> Metric:
    unit = {"speed": "seconds per image", "memory": "MiB for one image"}[name]
    return Metric(name, lambda case: torch.empty(0), "lower", unit)
