"""Benchmarks of attribution methods: any network, any method, any images."""

from zfnet.benchmarking.adapters import from_captum, from_grad_cam, from_torchcam
from zfnet.benchmarking.base import Case, Metric
from zfnet.benchmarking.boxes import load_boxed
from zfnet.benchmarking.metrics import METRICS
from zfnet.benchmarking.runner import benchmark
from zfnet.benchmarking.shortcut import load_shortcut_scenes
from zfnet.benchmarking.table import BenchmarkTable, Row, metric_agreement, rank_agreement

__all__ = [
    "benchmark", "BenchmarkTable", "Row", "METRICS", "Metric", "Case", "rank_agreement",
    "metric_agreement", "from_captum", "from_grad_cam", "from_torchcam", "load_boxed",
    "load_shortcut_scenes",
]  # fmt: skip
