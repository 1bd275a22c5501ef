"""The images in memory: sample photographs, uploads, and the last webcam frame of each tab."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zfnet.data.cache import DataError
from zfnet.data.formats import ImageError
from zfnet.data.images import center, preprocess
from zfnet.data.samples import PHOTOGRAPHS, photograph
from zfnet.explorer.errors import BadRequest

MAX_UPLOAD = 20_000_000  # bytes
KEPT = 32  # images that are not samples; the one that was not used for longest is dropped
THUMBNAIL = 72  # pixels
WEBCAM = "webcam-"  # and the tab: the name of its last frame
GIVEN = "given"  # the name of the image that `zfnet.explore` was called with


class ImageStore:
    """Network inputs (1, 3, S, S) by name.

    A sample is called by its name ("coffee"), an upload "upload-" and the start of its hash, and
    the last frame of a tab's webcam "webcam-" and the tab.

    Args:
        size: The side of the network's input in pixels.
        device: Where the network is.
    """

    def __init__(self, size: int, device: torch.device):
        self.size, self.device = size, device
        self._images: OrderedDict[str, Tensor] = OrderedDict()
        self._labels: dict[str, str] = {}
        self.samples = _available_samples()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._images:
            if name not in self.samples:
                raise BadRequest(
                    "this image is not in memory any more: choose a photograph, or drop a file"
                )
            self._keep(name, preprocess(photograph(name), self.size), name)
        self._images.move_to_end(name)
        return self._images[name]

    def label(self, name: str) -> str:
        """What the page calls an image: a sample's name, or the file's."""
        return self._labels.get(name, name)

    def upload(self, content: bytes, filename: str) -> str:
        """Decode an uploaded file, keep it, and return its name.

        Raises:
            BadRequest: If it is empty, too large, or not an image that Pillow can decode.
        """
        name = f"upload-{hashlib.sha256(content).hexdigest()[:16]}"
        self._keep(name, self._decode(content, filename), filename)
        return name

    def frame(self, content: bytes, tab: str) -> str:
        """Decode a webcam frame in place of the tab's previous one, and return its name."""
        name = f"{WEBCAM}{tab}"
        self._keep(name, self._decode(content, "the frame"), "webcam")
        return name

    def add(self, x: Tensor) -> str:
        """Keep a preprocessed image (1, 3, S, S), and return its name."""
        if tuple(x.shape) != (1, 3, self.size, self.size):
            raise ValueError(
                f"expected one image (1, 3, {self.size}, {self.size}), got {tuple(x.shape)}"
            )
        self._keep(GIVEN, x.detach(), "image")
        return GIVEN

    def thumbnails(self) -> np.ndarray:
        """The sample photographs (N, side, side, 3) uint8, as the network sees them."""
        squares = [center(photograph(name), THUMBNAIL) for name in self.samples]
        if not squares:
            return np.zeros((0, THUMBNAIL, THUMBNAIL, 3), np.uint8)
        return np.stack([np.asarray(square) for square in squares])

    def _decode(self, content: bytes, filename: str) -> Tensor:
        if not content:
            raise BadRequest(f"{filename} is empty")
        if len(content) > MAX_UPLOAD:
            raise BadRequest(f"{filename} has over {MAX_UPLOAD // 1_000_000} MB: choose a smaller")
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            try:
                return preprocess(file.name, self.size)
            except (ImageError, ValueError) as error:
                reason = str(error).replace(file.name, filename)
                raise BadRequest(reason) from None

    def _keep(self, name: str, x: Tensor, label: str) -> None:
        self._images[name] = x.to(self.device)
        self._images.move_to_end(name)
        self._labels[name] = label
        while len(self._images) > KEPT:
            dropped, _ = self._images.popitem(last=False)
            self._labels.pop(dropped, None)


def clean_filename(text: str) -> str:
    """Reduce a file name that a browser sent to what a message may show."""
    name = re.sub(r"[^\w.\- ()]", "_", Path(text.replace("\\", "/")).name).strip(". ")
    return name[:80] or "the file"


def _available_samples() -> tuple[str, ...]:
    """The names of the sample photographs; none where scikit-image is not installed."""
    try:
        photograph("coffee")
    except (DataError, ImageError):
        return ()
    return ("coffee", *(name for name in PHOTOGRAPHS if name != "coffee"))
