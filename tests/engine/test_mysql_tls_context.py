"""The TLS context of asyncmy and aiomysql is the one that PyMySQL makes of the same words."""

import ssl
from itertools import product
from typing import Any

import pytest
from pymysql.connections import Connection

from dbconfig.engine.dialects.mysql import pymysql, tls

AUTHORITIES = ssl.get_default_verify_paths().openssl_capath
TRUST: tuple[dict[str, Any], ...] = ({}, {"capath": AUTHORITIES})
NAMES: tuple[dict[str, Any], ...] = ({}, {"check_hostname": True}, {"check_hostname": False})
MODES = (None, True, False, "required", "REQUIRED", "none", "No", "optional", "1", "0", "something else")


@pytest.mark.parametrize(("trust", "name", "mode"), list(product(TRUST, NAMES, MODES)))
def test_it_verifies_what_pymysql_verifies(trust: dict[str, Any], name: dict[str, Any], mode: object) -> None:
    wanted = {**trust, **name, "verify_mode": mode}

    def of(build: Any) -> object:
        try:
            made = build(wanted)
        except ValueError as error:  # a host name cannot be checked where nothing is verified
            return str(error)
        return made.check_hostname, made.verify_mode

    theirs = getattr(Connection, "_create_ssl_ctx")  # noqa: B009  # private, and unchanged since 2013
    assert of(tls._context) == of(lambda each: theirs(None, each))


def test_a_context_is_taken_as_it_is() -> None:
    given = ssl.create_default_context()
    assert tls._context(given) is given


@pytest.mark.parametrize("driver", ["pymysql", "asyncmy, aiomysql"])
@pytest.mark.parametrize(
    ("wanted", "read"),
    [({}, False), ({"verify_mode": True}, True), ({"verify_mode": "optional"}, True), ({"capath": AUTHORITIES}, False)],
)
def test_the_authorities_of_the_system_are_read_only_to_verify(
    driver: str, wanted: dict[str, Any], read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes 30 ms, at each start of a program."""
    found: list[bool] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: found.append(True))
    theirs: Any = pymysql._sharing_tls_context()
    made = theirs._create_ssl_ctx(None, wanted) if driver == "pymysql" else tls._context(wanted)
    assert bool(found) is read
    assert (made.verify_mode is not ssl.CERT_NONE) is bool(wanted)
