"""Access control: accept only requests from this machine and origin, with the token."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_NAMES = ("127.0.0.1", "localhost")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; media-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors {frames}"
)
# A notebook's page comes from another port of this machine.
NOTEBOOKS = "'self' http://127.0.0.1:* http://localhost:* vscode-webview:"
WRONG_ADDRESS = "open the address that `zfnet explore` printed: it contains a token"


class Guard:
    """Refuse requests with a foreign Host or Origin, or without the token in the path.

    The Host check stops DNS rebinding. The Origin check and the token stop other pages and other
    users of this machine. Every path is /TOKEN/...; the application behind sees it without the
    token.

    Args:
        app: The application behind.
        port: The port of the server.
        token: The secret in the address.
        frames: Whether notebooks on this machine may show the page in a frame.
    """

    def __init__(self, app: ASGIApp, port: int, token: str, *, frames: bool = False):
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in LOCAL_NAMES}
        if port == 80:
            self.hosts |= set(LOCAL_NAMES)
        self.origins = {f"http://{host}" for host in self.hosts}
        policy = POLICY.format(frames=NOTEBOOKS if frames else "'none'")
        self.headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        reason = self.refusal(scope)
        if reason:
            await JSONResponse({"error": reason}, 403)(scope, receive, self._with_headers(send))
            return
        path = scope["path"][len(self.token) + 1 :] or "/"
        inner = {**scope, "path": path, "raw_path": path.encode()}
        await self.app(inner, receive, self._with_headers(send))

    def refusal(self, scope: Scope) -> str | None:
        """Why a request is refused, or None."""
        if _header(scope, b"host") not in [[host] for host in self.hosts]:
            return "this server answers only at 127.0.0.1 and localhost"
        origins = _header(scope, b"origin")
        if origins and (len(origins) > 1 or origins[0] not in self.origins):
            return "this server answers only its own page"
        parts = scope["path"].split("/")
        if len(parts) < 3 or not secrets.compare_digest(parts[1].encode(), self.token.encode()):
            return WRONG_ADDRESS
        return None

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self.headers]}
            await send(message)

        return sending


def _header(scope: Scope, name: bytes) -> Sequence[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
