"""The key `query_tags`: a list of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from dbconfig.errors.printable import did_you_mean, quoted, suggest
from dbconfig.settings.findings import reject
from dbconfig.settings.value_types import kind_of, plain

TAGS: Final[Mapping[str, str]] = {
    "application": "The name of this program: `application_name`",
    "route": "The route of the request, set by the integrations of FastAPI and Flask",
    "task": "The name of the task, set by the integration of Celery",
    "traceparent": "The trace, if sampled: every statement then has a different text, so none stays prepared",
}


def tags(value: Any) -> tuple[str, ...]:
    """Accept a list of names, or a comma-separated text, as in an environment variable."""
    raw = plain(value)
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if not isinstance(raw, list | tuple) or not all(isinstance(each, str) for each in raw):
        raise reject("wrong-type", f"must be a list of names, not {kind_of(value)}", "write [application, route]")
    for each in raw:
        if each not in TAGS:
            help = did_you_mean(suggest(each, TAGS)) or "the application sets further ones: db.tags(job=…)"
            raise reject("invalid-value", f"{quoted(each)} is not one of {', '.join(TAGS)}", help)
    return tuple(dict.fromkeys(raw))


Tags = Annotated[tuple[str, ...], BeforeValidator(tags)]
