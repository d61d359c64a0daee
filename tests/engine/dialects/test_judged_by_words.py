"""Errors whose code says too little: their words decide, and nothing else in them does."""

from __future__ import annotations

import ssl

import pytest

from dbconfig.engine.dialects import error_table
from dbconfig.engine.dialects.error_table import Meaning
from dbconfig.engine.dialects.postgresql import errors as postgresql
from dbconfig.engine.dialects.system_errors import of_system

ENTRY = 'no pg_hba.conf entry for host "10.0.0.1", user "u", database "d"'


@pytest.mark.parametrize(
    ("words", "row"),
    [
        (f"{ENTRY}, no encryption", error_table.TLS_REQUIRED),
        (f"{ENTRY}, SSL encryption", error_table.LOGIN_REJECTED),
        ('role "u" does not exist', error_table.LOGIN_REJECTED),
        ('role "too many connections" does not exist', error_table.LOGIN_REJECTED),  # a name that looks like an error
        ("etwas in einer anderen Sprache", error_table.LOGIN_REJECTED),
    ],
)
def test_why_postgresql_rejects_a_login(words: str, row: Meaning) -> None:
    assert postgresql.of_state("28000", words) is row


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", error_table.NOT_A_DATABASE),
        ("[SSL: UNKNOWN_PROTOCOL] unknown protocol", error_table.NOT_A_DATABASE),
        ("[SSL: HTTP_REQUEST] http request", error_table.NOT_A_DATABASE),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", error_table.TLS_UNTRUSTED),
        ("[SSL: SSLV3_ALERT_BAD_CERTIFICATE] alert bad certificate", error_table.TLS_UNTRUSTED),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] alert handshake failure", error_table.TLS_REFUSED),
    ],
)
def test_why_tls_fails(words: str, row: Meaning) -> None:
    assert of_system(ssl.SSLError(1, words)) is row


def test_tls_that_ends_is_a_lost_connection() -> None:
    for kind in (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        assert of_system(kind(8, "EOF occurred in violation of protocol")) is error_table.CONNECTION_LOST
    assert of_system(ssl.SSLCertVerificationError(1, "HTTP_REQUEST")) is error_table.TLS_UNTRUSTED
