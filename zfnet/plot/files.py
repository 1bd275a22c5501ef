"""Pictures and GIFs, written atomically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from zfnet.data.io import atomic_write


def write_gif(frames: np.ndarray, path: Path, milliseconds: int | Sequence[int] = 100) -> None:
    """Write an endless GIF atomically. Each frame has its own palette, which keeps colors true.

    Args:
        frames: (N, H, W, 3) uint8. Equal consecutive frames are merged.
        path: The file to write.
        milliseconds: One duration for all frames, or one per frame. GIF stores hundredths of a
            second, and browsers show none below two.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.gif"
        >>> frames = np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), 255)]).astype(np.uint8)
        >>> write_gif(frames, path)
        >>> Image.open(path).n_frames
        2
    """
    images = [
        Image.fromarray(f).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        for f in frames
    ]
    times = milliseconds if isinstance(milliseconds, int) else list(milliseconds)
    with atomic_write(path) as partial:
        images[0].save(
            partial,
            "GIF",
            save_all=True,
            append_images=images[1:],
            duration=times,
            loop=0,
            optimize=True,
        )


def write_figure(figure: Figure, path: Path, quality: int = 88) -> None:
    """Write a matplotlib figure atomically.

    Args:
        figure: The figure.
        path: The file to write; .jpg suits photographs.
        quality: JPEG quality, 1 to 95.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "empty.png"
        >>> write_figure(Figure(), path)
        >>> path.is_file()
        True
    """
    options: dict[str, Any] = (
        {"pil_kwargs": {"quality": quality, "optimize": True}}
        if path.suffix in (".jpg", ".jpeg")
        else {}
    )
    with atomic_write(path) as partial:
        figure.savefig(
            partial,
            dpi=150,
            format=path.suffix[1:] or "png",
            bbox_inches="tight",
            pad_inches=0.06,
            **options,
        )
