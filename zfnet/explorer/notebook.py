"""The explorer in a notebook: `zfnet.explore`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

HEIGHT = 900  # pixels
_servers: list[Any] = []  # of this kernel: a new page stops the previous server


def explore(
    model: Any, x: Tensor | None = None, *, name: str | None = None, atlas: Path | None = None
) -> Any:
    """Show the explorer in a frame of a notebook whose kernel runs on this machine.

    The page is that of `zfnet explore`. A new call stops the server of the previous one.

    Args:
        model: A network with `classes` and `size`, as `zfnet.load` returns it.
        x: One image (1, 3, S, S), as `zfnet.preprocess` returns it; None begins with a sample
            photograph.
        name: What the page calls the network; None takes its architecture's name.
        atlas: The folder of an atlas of this network, for the neighbors of its features.

    Returns:
        The frame, an `IPython.display.IFrame`, which the notebook shows.

    Raises:
        RuntimeError: If this is not a notebook, if its kernel runs on another machine, or if the
            extra `explorer` is not installed.
        UnsupportedNetwork: If the deconvnet cannot invert the network.
        ValueError: If x is not one image of the network's size.

    Example:
        >>> import zfnet
        >>> zfnet.explore(zfnet.mnist())
        Traceback (most recent call last):
        RuntimeError: zfnet.explore shows a frame in a notebook; elsewhere, use `zfnet explore`
    """
    reason = unavailable()
    if reason:
        raise RuntimeError(reason)
    from IPython.display import IFrame

    from zfnet.explorer.backend import Backend
    from zfnet.explorer.server import Server

    backend = Backend(model, name or getattr(model, "arch", type(model).__name__), atlas=atlas)
    state = "" if x is None else f"#image={backend.images.add(x)}"
    while _servers:
        _servers.pop().stop()
    server = Server(port=0, frames=True)
    server.start(backend)
    _servers.append(server)
    return IFrame(server.url + state, "100%", HEIGHT, extras=['allow="camera"'])


def unavailable() -> str | None:
    """Why a notebook cannot show the page, or None."""
    if not runs_in_kernel():
        return "zfnet.explore shows a frame in a notebook; elsewhere, use `zfnet explore`"
    if "google.colab" in sys.modules or os.environ.get("JUPYTERHUB_API_URL"):
        return "the kernel runs on another machine, whose ports a browser cannot reach"
    if os.environ.get("SSH_CONNECTION"):
        return "the kernel runs over SSH: run `zfnet explore` there, and forward its port"
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        return "zfnet.explore needs the extra: pip install 'zfnet-deconvnet[explorer]'"
    return None


def runs_in_kernel() -> bool:
    """Whether a Jupyter kernel executes this process's code."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
