"""`zfnet explore`: a local page to explore a network interactively."""

from __future__ import annotations

import argparse
import json
import threading
import webbrowser
from pathlib import Path
from urllib.parse import urlencode

from zfnet.cli.common import UserError, load_model, usage_errors
from zfnet.cli.image_arguments import SHORTEST_TOKEN

EXTRA = "the explorer needs starlette and uvicorn: pip install 'zfnet-deconvnet[explorer]'"
CLONE = Path(__file__).resolve().parents[2]  # where figures/ is, in a clone


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
        checkpoint = getattr(model, "info", {}).get("sha256", "")
        atlas = options.atlas or find_atlas(Path.cwd(), checkpoint) or find_atlas(CLONE, checkpoint)
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
    model = json.dumps(options.model, ensure_ascii=False)
    if not options.model.startswith("torchvision:"):
        return f"zfnet.load({model})"
    weights = f", {json.dumps(options.weights, ensure_ascii=False)}" if options.weights else ""
    return f"load_network({model}{weights})"
