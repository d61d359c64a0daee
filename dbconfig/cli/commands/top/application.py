"""The pools of an application, from the URL of its `/health/db/details`; the header for a guard is in a variable."""

from __future__ import annotations

import json
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from dbconfig.errors import ConfigError
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Problem
from dbconfig.settings.environment_variables import Environment

TIMEOUT: Final = 5.0  # seconds
_MOST: Final = 1_000_000  # bytes
_HELP: Final = "give the address of /health/db/details: docs/observability.md"
_FOR_GUARD: Final = "--header VARIABLE names an environment variable such as API_HEADER='Authorization: Bearer …'"


class _NoRedirect(HTTPRedirectHandler):
    """Refuses redirects, so that no other server gets the header."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        raise HTTPError(req.full_url, code, "it redirects elsewhere", headers, fp)


def header(variable: str | None, environment: Environment) -> tuple[str, str] | None:
    """Return the name and the value of the header in a variable, so that the secret is not on the command line.

    Raises:
        ConfigError: the variable is not set, or holds no header.
    """
    if variable is None:
        return None
    found = environment.get(variable)
    if found is None:
        message = f"environment variable {quoted(variable)} is not set"
        raise ConfigError([Problem("unset-variable", message, help=_FOR_GUARD)])
    name, colon, value = found.value.partition(":")
    value = value.strip()
    text = name + value
    if not (colon and value and name.replace("-", "").isalnum() and text.isascii() and text.isprintable()):
        message = f"environment variable {quoted(variable)} is not an HTTP header"
        raise ConfigError([Problem("invalid-value", message, found.location, help=_FOR_GUARD)])
    return name, value


def pools(url: str, own_header: tuple[str, str] | None) -> dict[str, Any]:
    """Return the details of an application.

    Raises:
        ConfigError: it is another page, or cannot be reached.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ValueError("it is not an HTTP address")
        if "@" in parts.netloc:
            message = "--url has a user or a password, which other users of this machine can read"
            raise ConfigError([Problem("invalid-value", message, help=_FOR_GUARD)])
        request = Request(url, headers={"Accept": "application/json", **dict([own_header] if own_header else [])})  # noqa: S310  # checked above
        with build_opener(*[_NoRedirect] * bool(own_header)).open(request, timeout=TIMEOUT) as answer:
            found = json.loads(answer.read(_MOST))
        if not isinstance(found, dict) or not isinstance(found.get("pools"), dict):
            raise ValueError("it has no `pools`")
    except HTTPError as error:
        error.close()
        refused = error.code in (401, 403)
        message = f"--url shows no pools: the application answers {error.code} ({error.reason})"
        help = _FOR_GUARD if refused else _HELP
        raise ConfigError([Problem("invalid-value", message, help=help)]) from error
    except ConfigError:
        raise
    except HTTPException as error:  # its text may contain the whole URL, including a token
        message = "--url shows no pools: the address or its answer is not HTTP"
        raise ConfigError([Problem("invalid-value", message, help=_HELP)]) from error
    except (OSError, ValueError) as error:
        raise ConfigError([Problem("invalid-value", f"--url shows no pools: {error}", help=_HELP)]) from error
    return found
