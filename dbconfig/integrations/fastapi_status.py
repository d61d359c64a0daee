"""FastAPI: the status page, and the details of the readiness check, both behind a guard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse, JSONResponse

from dbconfig.integrations.status_page import DETAILS, HEADERS, PATH, opened
from dbconfig.registry.registry import Registry


def status(
    guard: Callable[..., Any] | None = None,
    *,
    path: str = PATH,
    details: str = DETAILS,
    registry: Registry | None = None,
) -> APIRouter:
    """Return a router of two pages about the pools of this process: HTML, and JSON.

    They show numbers and the names of pools, but no hosts, users, or statements.

    Args:
        guard: a dependency that raises an HTTPException for callers who may not see them. Optional only in the profile
            `development`.
        path: of the HTML.
        details: of the JSON.
        registry: another registry than `dbconfig.db`.

    Raises:
        ConfigError: `guard` is missing, and the profile is not `development`.
    """
    page = opened(guard, registry)
    router = APIRouter(tags=["health"], dependencies=[] if guard is None else [Depends(guard)])

    @router.get(path, response_class=HTMLResponse, include_in_schema=False)
    def database_status() -> HTMLResponse:
        return HTMLResponse(page.html(), headers=HEADERS)

    @router.get(details)
    def database_details() -> JSONResponse:
        return JSONResponse(page.details(), headers=HEADERS)

    return router
