"""Errors of the operating system, TLS, and streams, and their meanings during a connection attempt."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

from dbconfig.engine.dialects.error_table import (
    CONNECTION_LOST,
    HOST_UNKNOWN,
    NOT_A_DATABASE,
    REFUSED,
    TIMED_OUT,
    TLS_REFUSED,
    TLS_UNTRUSTED,
    UNREACHABLE,
    Meaning,
)

# The operating system's own numbers; https://man7.org/linux/man-pages/man3/errno.3.html
_SYSTEM: Final = {
    errno.ECONNREFUSED: REFUSED,
    errno.ENOENT: REFUSED,  # the socket of a server that is not up
    errno.ENETUNREACH: UNREACHABLE,
    errno.EHOSTUNREACH: UNREACHABLE,
    errno.ENETDOWN: UNREACHABLE,
    errno.EHOSTDOWN: UNREACHABLE,
    errno.ETIMEDOUT: TIMED_OUT,
    errno.ECONNRESET: CONNECTION_LOST,
    errno.ECONNABORTED: CONNECTION_LOST,
    errno.EPIPE: CONNECTION_LOST,
    errno.ENOTCONN: CONNECTION_LOST,
    errno.ESHUTDOWN: CONNECTION_LOST,
}


def of_system(error: BaseException) -> Meaning | None:
    """Return what an error of the operating system, of TLS, or of a stream means."""
    if isinstance(error, ssl.SSLError):  # before OSError: its number is OpenSSL's, not the system's
        return _of_tls(error)
    if isinstance(error, socket.gaierror):
        return HOST_UNKNOWN
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    if isinstance(error, EOFError):  # asyncio.IncompleteReadError is one
        return CONNECTION_LOST
    if isinstance(error, ConnectionRefusedError):  # raised by a library, it may have no number
        return REFUSED
    if isinstance(error, ConnectionError):
        return CONNECTION_LOST
    return _SYSTEM.get(error.errno or 0) if isinstance(error, OSError) else None


def _of_tls(error: ssl.SSLError) -> Meaning:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLS_UNTRUSTED
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return CONNECTION_LOST
    reason = f"{getattr(error, 'reason', None)} {error}".upper()  # Python sets it only for OpenSSL's own
    if "WRONG_VERSION_NUMBER" in reason or "UNKNOWN_PROTOCOL" in reason or "HTTP_REQUEST" in reason:
        return NOT_A_DATABASE
    return TLS_UNTRUSTED if "CERT" in reason or "UNKNOWN_CA" in reason else TLS_REFUSED
