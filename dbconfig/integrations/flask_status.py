"""Flask: the status page, and the details of the readiness check, both behind a guard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify

from dbconfig.integrations.status_page import DETAILS, HEADERS, PATH, opened
from dbconfig.registry.registry import Registry


def status(
    guard: Callable[[], Any] | None = None,
    *,
    path: str = PATH,
    details: str = DETAILS,
    registry: Registry | None = None,
) -> Blueprint:
    """Return a blueprint of two pages about the pools of this process: HTML, and JSON.

    They show numbers and the names of pools, but no hosts, users, or statements.

    Args:
        guard: a function that aborts, or returns a response, for callers who may not see them. Optional only in the
            profile `development`.
        path: of the HTML.
        details: of the JSON.
        registry: another registry than `dbconfig.db`.

    Raises:
        ConfigError: `guard` is missing, and the profile is not `development`.
    """
    page = opened(guard, registry)
    blueprint = Blueprint("dbconfig_status", __name__)
    if guard is not None:
        blueprint.before_request(guard)

    @blueprint.get(path)
    def database_status() -> Response:
        return Response(page.html(), mimetype="text/html", headers=HEADERS)

    @blueprint.get(details)
    def database_details() -> Response:
        answer = jsonify(page.details())
        answer.headers.update(HEADERS)
        return answer

    return blueprint
