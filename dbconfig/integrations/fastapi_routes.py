"""The route of each request of an ASGI application, for the query tags of its statements."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from dbconfig.engine import query_tags


class RouteMiddleware:
    """Supplies the route of a request to its statements; it is known once the request has been routed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        def route() -> Mapping[str, str]:
            path = getattr(scope.get("route"), "path", None)
            return {"route": path} if isinstance(path, str) else {}

        # Not `described_by`: with a context manager it would take twice as long, and every request passes here.
        token = query_tags.supplier.set(route)
        try:
            await self._app(scope, receive, send)
        finally:
            query_tags.supplier.reset(token)
