"""The local server: one process, one network in memory, any number of tabs."""

from __future__ import annotations

import errno
import secrets
import socket
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from zfnet.explorer.api import Api
from zfnet.explorer.backend import Backend
from zfnet.explorer.guard import Guard
from zfnet.explorer.worker import Worker

ADDRESS = "127.0.0.1"
PORT = 8765
STATIC = Path(__file__).parent / "static"
CONNECTIONS = 200


class PortError(OSError):
    """The port cannot be used. The message says what to do."""

    def __str__(self) -> str:
        return str(self.args[0])


class Server:
    """The page of one network, at http://127.0.0.1:PORT/TOKEN/.

    The port is bound at once, so that a browser can connect while the network loads.

    Args:
        port: The port; None takes 8765, or a free one where that is taken.
        token: The secret in the address; None draws one.
        frames: Whether notebooks on this machine may show the page in a frame.

    Raises:
        PortError: If the port is taken or not allowed.
    """

    def __init__(self, port: int | None = None, token: str | None = None, *, frames: bool = False):
        self.socket = _bind(port)
        self.port: int = self.socket.getsockname()[1]
        self.token = token or secrets.token_urlsafe(24)
        self.frames = frames
        self._uvicorn: uvicorn.Server | None = None

    @property
    def url(self) -> str:
        """The address to open."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    def run(self, backend: Backend) -> None:
        """Serve until `stop`, or until Ctrl-C, which raises KeyboardInterrupt; free the port."""
        worker = Worker()
        app = Guard(application(backend, worker), self.port, self.token, frames=self.frames)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, ws="none", lifespan="off", http="h11",
            limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=1, server_header=False,
        )  # fmt: skip
        self._uvicorn = uvicorn.Server(config)
        try:
            self._uvicorn.run(sockets=[self.socket])
        finally:
            worker.stop()
            self.close()

    def start(self, backend: Backend) -> threading.Thread:
        """Serve in another thread, as a notebook needs it."""
        thread = threading.Thread(target=self.run, args=(backend,), daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """Let `run` return."""
        if self._uvicorn:
            self._uvicorn.should_exit = True

    def close(self) -> None:
        """Free the port."""
        self.socket.close()


def application(backend: Backend, worker: Worker) -> Starlette:
    """The page, its files, and the API."""

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    return Starlette(
        routes=[
            Route("/", page),
            Mount("/api", routes=Api(backend, worker).routes()),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
    )


def _bind(port: int | None) -> socket.socket:
    """Bind a port of this machine, and listen."""
    for candidate in [PORT, 0] if port is None else [port]:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((ADDRESS, candidate))
            bound.listen(128)
            return bound
        except (OSError, OverflowError) as error:
            bound.close()
            if port is not None:
                taken = getattr(error, "errno", None) == errno.EADDRINUSE
                reason = "is taken" if taken else f"cannot be used ({error})"
                raise PortError(f"port {port} {reason}: choose another --port") from None
    raise PortError("no free port")
