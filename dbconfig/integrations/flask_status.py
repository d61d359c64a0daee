"""Flask: the status page, and the details of the readiness check, both behind a guard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify

from dbconfig.integrations.status_page import Page, refuse_without_guard
from dbconfig.registry.registry import Registry, default


def status(
    guard: Callable[[], Any] | None = None,
    *,
    path: str = "/status/db",
    details: str = "/health/db/details",
    registry: Registry | None = None,
) -> Blueprint:
    """Return a blueprint of two pages about the pools of this process: HTML, and JSON.

    They show numbers and the names of pools, and neither host nor user nor statement.

    Args:
        guard: called before each request; it aborts, or returns a response, for callers who may not see them. It may be
            missing in the profile `development` alone.
        path: of the HTML.
        details: of the JSON.
        registry: another one than `dbconfig.db`.

    Raises:
        ConfigError: there is no guard, and the profile is not `development`.
    """
    chosen = registry or default
    refuse_without_guard(guard, chosen)
    page = Page(chosen)
    page.watch()
    blueprint = Blueprint("dbconfig_status", __name__)
    if guard is not None:
        blueprint.before_request(guard)

    @blueprint.get(path)
    def database_status() -> Response:
        return Response(page.html(), mimetype="text/html", headers={"Cache-Control": "no-store"})

    @blueprint.get(details)
    def database_details() -> Response:
        answer = jsonify(page.details())
        answer.headers["Cache-Control"] = "no-store"
        return answer

    return blueprint
