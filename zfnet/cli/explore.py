"""`zfnet explore`: a local page that shows what the network makes of an image."""

from __future__ import annotations

import argparse
import threading
import webbrowser
from pathlib import Path
from urllib.parse import urlencode

from zfnet.cli.common import UserError, add_model, load_model, usage_errors
from zfnet.data.io import expand_path

NAME = "explore"
HELP = "open a page that answers while you touch the network"
DESCRIPTION = (
    "Serve a page on this machine that shows what the network makes of an image: feature maps, "
    "projections, occlusion and attribution maps. Ctrl-C stops it."
)
EXTRA = "the explorer needs starlette and uvicorn: pip install 'zfnet-deconvnet[explorer]'"
SHORTEST_TOKEN = 16
CLONE = Path(__file__).resolve().parents[2]  # where figures/ is, in a clone


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "image",
        nargs="?",
        type=expand_path,
        help="the path of an image (default: a sample photograph)",
    )
    add_model(sub)
    sub.add_argument(
        "--port",
        type=int,
        help="the port of the page, from 0, which takes a free one, to 65535 (default: 8765, or a "
        "free one if it is taken)",
    )
    sub.add_argument(
        "--token",
        help="the secret in the page's address, so that saved addresses stay valid: at least "
        f"{SHORTEST_TOKEN} letters, digits, - or _ (default: a new random one)",
    )
    sub.add_argument(
        "--atlas",
        type=expand_path,
        metavar="DIR",
        help="an atlas of this network, for the neighbors of its features (default: one below "
        "figures/ of the current folder or of the clone, if any)",
    )
    sub.add_argument(
        "--no-browser", action="store_true", help="do not open a browser (default: open one)"
    )


def run(options: argparse.Namespace) -> None:
    try:
        from zfnet.explorer.server import Server
    except ImportError:
        raise UserError(EXTRA) from None
    from zfnet.explorer.atlas import find_atlas
    from zfnet.explorer.backend import Backend

    check_token(options.token)
    if options.atlas and not (options.atlas / "data" / "index.js").is_file():
        raise UserError(f"{options.atlas} is not an atlas: it has no data/index.js")
    server = Server(options.port, options.token)
    try:
        model = load_model(options)
        atlas = options.atlas or find_atlas(Path.cwd()) or find_atlas(CLONE)
        backend = Backend(model, options.model, source_of(options), atlas)
        url = server.url
        if options.image:
            content = read_bytes(options.image)
            with usage_errors():
                image = backend.images.upload(content, options.image.name)
            url += "#" + urlencode({"image": image})
        print(f"open {url}\nCtrl-C stops the server", flush=True)
        if not options.no_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        server.run(backend)  # until an interrupt
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    print("\nstopped")


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def check_token(token: str | None) -> None:
    if token is None:
        return
    if len(token) < SHORTEST_TOKEN or not token.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"--token must have at least {SHORTEST_TOKEN} letters, digits, - or _, got {token!r}"
        )


def source_of(options: argparse.Namespace) -> str:
    """The Python that loads the network of --model."""
    if not options.model.startswith("torchvision:"):
        return f"zfnet.load({options.model!r})"
    weights = f", {options.weights!r}" if options.weights else ""
    return f"load_network({options.model!r}{weights})"
