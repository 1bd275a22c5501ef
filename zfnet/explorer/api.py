"""The API of the page. All URLs begin with /TOKEN/api/; docs/explorer.md lists them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from zfnet.attribution.registry import METHODS
from zfnet.explorer import share
from zfnet.explorer.backend import MAX_MAPS, Backend
from zfnet.explorer.errors import BadRequest, Cancelled, Superseded
from zfnet.explorer.images import MAX_UPLOAD, THUMBNAIL, clean_filename
from zfnet.explorer.query import Query
from zfnet.explorer.variants import COLLISIONS, RECTIFICATIONS, Rules
from zfnet.explorer.wire import pack, to_json
from zfnet.explorer.worker import Worker
from zfnet.graph import UnknownLayer, UnsupportedNetwork

USER_ERRORS = (BadRequest, UnknownLayer, UnsupportedNetwork, ValueError, IndexError)
UPLOADS = 4  # at a time
UPLOAD_SECONDS = 30
SHARED_VIEWS = ("unit", "cover", "sweep", "compare")
BINARY = "application/octet-stream"
log = logging.getLogger("zfnet.explorer")
Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The handlers: each reads its parameters, has the worker compute, and encodes the answer."""

    def __init__(self, backend: Backend, worker: Worker):
        self.backend, self.worker = backend, worker
        self.uploads = asyncio.Semaphore(UPLOADS)

    def routes(self) -> list[Route]:
        """The routes. Errors are returned as messages."""
        handlers = {
            "network": self.network, "samples": self.samples, "image": self.image,
            "maps": self.maps, "unit": self.unit, "neighbors": self.neighbors,
            "cover": self.cover, "sweep": self.sweep, "explain": self.explain,
            "share": self.share, "picture": self.picture,
        }  # fmt: skip
        posted = {"upload": self.upload, "frame": self.frame}
        return [
            *(Route(f"/{name}", sentence(h), methods=["GET"]) for name, h in handlers.items()),
            *(Route(f"/{name}", sentence(h), methods=["POST"]) for name, h in posted.items()),
        ]

    async def network(self, request: Request) -> Response:
        return Response(to_json(self.backend.describe()), media_type="application/json")

    async def samples(self, request: Request) -> Response:
        images = self.backend.images
        thumbnails = await asyncio.to_thread(images.thumbnails)  # does not touch the network
        header = {"names": images.samples, "side": THUMBNAIL}
        return Response(pack(header, thumbnails=thumbnails), media_type=BINARY)

    async def image(self, request: Request) -> Response:
        image = Query(request.query_params).text("image")
        return await self._binary(request, "image", lambda: self.backend.image(image))

    async def upload(self, request: Request) -> Response:
        name = clean_filename(Query(request.query_params).text("name", "the file"))
        content = await self._body(request)
        store = self.backend.images
        image = await self._compute(request, "upload", lambda: store.upload(content, name))
        return Response(to_json({"image": image}), media_type="application/json")

    async def frame(self, request: Request) -> Response:
        """Keep a webcam frame, and answer as `image` does."""
        content, tab = await self._body(request), tab_of(request)

        def answer():
            return self.backend.image(self.backend.images.frame(content, tab))

        return await self._binary(request, "frame", answer)

    async def maps(self, request: Request) -> Response:
        query = Query(request.query_params)
        image, layer = query.text("image"), query.text("layer")
        start = query.integer("start", 0, 0, 100_000)
        count = query.integer("count", 24, 1, MAX_MAPS)
        return await self._binary(
            request, "maps", lambda: self.backend.maps(image, layer, start, count)
        )

    async def unit(self, request: Request) -> Response:
        query = Query(request.query_params)
        image, unit, rules = query.text("image"), query.unit(), rules_of(query)
        return await self._binary(request, "unit", lambda: self.backend.unit(image, unit, rules))

    async def neighbors(self, request: Request) -> Response:
        unit = Query(request.query_params).unit()
        return await self._binary(request, "neighbors", lambda: self.backend.neighbors(unit))

    async def cover(self, request: Request) -> Response:
        query = Query(request.query_params)
        image, target, pins, box = query.text("image"), query.target(), query.pins(), box_of(query)
        answer = await self._compute(
            request, "cover", lambda: self.backend.cover(image, box, target, pins)
        )
        return Response(to_json(answer), media_type="application/json")

    async def explain(self, request: Request) -> Response:
        query = Query(request.query_params)
        image, method, target = query.text("image"), query.text("method", None, [*METHODS]), None
        target = query.target()
        progress = self.worker.progress(lambda done, total: None)
        return await self._binary(
            request,
            "explain",
            lambda: self.backend.explain(image, method, target, progress),
            long=True,
        )

    async def sweep(self, request: Request) -> Response:
        """Stream JSON lines: {"done", "total"} while it computes, and {"result"} at the end."""
        query = Query(request.query_params)
        image, target = query.text("image"), query.target()
        size, stride = self._window(query)
        return StreamingResponse(
            self._sweep(request, image, size, stride, target), media_type="application/x-ndjson"
        )

    async def _sweep(
        self, request: Request, image: str, size: int, stride: int, target: int | None
    ) -> AsyncIterator[str]:
        latest, cancelled = {"done": 0, "total": 0}, threading.Event()

        def report(done: int, total: int) -> None:
            if cancelled.is_set():
                raise Cancelled("the sweep was cancelled")
            latest.update(done=done, total=total)

        def compute():
            return self.backend.sweep(image, size, stride, target, self.worker.progress(report))

        future = self.worker.submit((tab_of(request), "sweep"), compute, long=True)
        waiting = asyncio.wrap_future(future)
        try:
            while not waiting.done():
                yield to_json(latest) + "\n"
                await asyncio.wait([waiting], timeout=0.1)
            yield to_json({"result": waiting.result()}) + "\n"
        except (Superseded, Cancelled, *USER_ERRORS) as error:
            yield to_json({"error": message_of(error)}) + "\n"
        finally:  # also if the page closed the stream
            cancelled.set()
            waiting.cancel()

    async def share(self, request: Request) -> Response:
        shared = await self._compute(request, "share", self._shared(request), long=True)
        answer = {"caption": shared.caption, "code": shared.code, "name": shared.name}
        return Response(to_json(answer), media_type="application/json")

    async def picture(self, request: Request) -> Response:
        make = self._shared(request)
        png = await self._compute(request, "picture", lambda: make().png(), long=True)
        return Response(png, media_type="image/png")

    def _shared(self, request: Request) -> Callable[[], share.Shared]:
        query, backend = Query(request.query_params), self.backend
        image, view = query.text("image"), query.text("view", "unit", SHARED_VIEWS)
        if view == "unit":
            unit, rules = query.unit(), rules_of(query)
            return lambda: share.share_unit(backend, image, unit, rules)
        target, box = query.target(), box_of(query)
        progress = self.worker.progress(lambda done, total: None)
        if view == "sweep":
            size, stride = self._window(query)
            return lambda: share.share_sweep(backend, image, size, stride, target, progress)
        if view == "compare":
            methods = [query.text(side, None, [*METHODS]) for side in ("left", "right")]
            return lambda: share.share_comparison(backend, image, methods, target, progress)
        if box is None:
            raise BadRequest("the request lacks box=")
        return lambda: share.share_cover(backend, image, box, target)

    def _window(self, query: Query) -> tuple[int, int]:
        """The size and stride of a sweep."""
        size = query.integer("size", 32, 8, self.backend.model.size)
        return size, query.integer("stride", 8, 4, size)

    async def _compute(self, request: Request, kind: str, function: Callable, **options) -> Any:
        lane = (tab_of(request), Query(request.query_params).text("lane", kind)[:40])
        return await self.worker.compute(lane, function, **options)

    async def _binary(self, request: Request, kind: str, function: Callable, **options) -> Response:
        def answer() -> bytes:
            header, arrays = function()
            return pack(header, **arrays)

        return Response(await self._compute(request, kind, answer, **options), media_type=BINARY)

    async def _body(self, request: Request) -> bytes:
        """Read the body, but no more of it than MAX_UPLOAD."""
        too_large = BadRequest(f"the file has over {MAX_UPLOAD // 1_000_000} MB: choose a smaller")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:12]) > MAX_UPLOAD:
            raise too_large
        parts, size = [], 0
        async with self.uploads:
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    async for part in request.stream():
                        size += len(part)
                        if size > MAX_UPLOAD:
                            raise too_large
                        parts.append(part)
            except TimeoutError:
                raise BadRequest(f"the upload took over {UPLOAD_SECONDS} s") from None
        return b"".join(parts)


def sentence(handler: Handler) -> Handler:
    """Return errors as {"error": message}: 400 for invalid input, 409 for a superseded request."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except (Superseded, Cancelled, asyncio.CancelledError) as error:
            return _error(409, message_of(error) or "the server is stopping")
        except USER_ERRORS as error:
            return _error(400, message_of(error))
        except ClientDisconnect:
            return _error(400, "the connection was closed")
        except Exception as error:
            log.exception("request failed")
            return _error(500, f"internal error ({type(error).__name__}); see the terminal")

    return handle


def message_of(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())[:400]


def rules_of(query: Query) -> Rules:
    """Return the rules of the parameters method, switches, collision and normalization."""
    return Rules(
        query.text("method", "deconvnet", RECTIFICATIONS),
        query.flag("switches", True),
        query.text("collision", "sum", COLLISIONS),
        query.flag("normalization", False),
    )


def box_of(query: Query) -> tuple[int, int, int, int] | None:
    edges = query.integers("box", 4)
    return None if edges is None else (edges[0], edges[1], edges[2], edges[3])


def tab_of(request: Request) -> str:
    """Return the name of the tab that sent the request."""
    tab = request.query_params.get("tab", "")[:32]
    return tab if tab.isascii() and tab.isalnum() else "tab"


def _error(status: int, text: str) -> Response:
    content = to_json({"error": text})
    return Response(content, status, media_type="application/json")
