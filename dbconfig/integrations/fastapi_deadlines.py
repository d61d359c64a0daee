"""The deadline of each request of an ASGI application, until its response has been sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.requests import Request
from fastapi.responses import JSONResponse, Response

from dbconfig.engine.pool import deadline
from dbconfig.integrations.request_deadlines import HEADER, TOO_LATE, BadDeadline, RequestDeadline

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class DeadlineMiddleware:
    """Gives each HTTP request a deadline: outermost, so that it covers dependencies and their threads too."""

    def __init__(self, app: App, limit: RequestDeadline) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # a websocket may be open for hours
            return
        try:
            seconds = self._limit.seconds(Request(scope).headers.get(HEADER))
        except BadDeadline as error:
            await JSONResponse({"detail": str(error)}, status_code=400)(scope, receive, send)
            return

        async def send_and_lift(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                deadline.lift()  # work after the response, such as background tasks, has no deadline

        with deadline.Deadline(seconds):
            await self._app(scope, receive, send_and_lift)


async def too_late(request: Request, error: Exception) -> Response:
    """Answer 504."""
    return JSONResponse({"detail": TOO_LATE}, status_code=504)
