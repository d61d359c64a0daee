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

        with query_tags.described_by(route):
            await self._app(scope, receive, send)
