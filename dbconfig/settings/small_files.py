"""Small files read whole: regular, limited in size, decoded without a byte order mark."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from pathlib import Path
from typing import Final

LIMIT: Final = 256 * 1024  # bytes of a configuration file; the largest seen in public code has 40 kB
CERTIFICATES: Final = 8 * 1024 * 1024  # bytes; the bundle of all public authorities has about 230 kB

_REASONS: Final = {
    errno.ENOENT: "it does not exist",
    errno.EISDIR: "it is a folder, not a regular file",
    errno.EACCES: "permission to read it is denied",
    errno.ELOOP: "its symbolic links form a loop",
}
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Unreadable(Exception):
    """A file that cannot be used; the text says why, and never contains the content."""

    def __init__(self, reason: str, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.too_large = too_large


def read(path: Path, limit: int = LIMIT) -> bytes:
    """Return the bytes of a file.

    Raises:
        Unreadable: it cannot be opened, is not a regular file, or is larger than the limit.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would block.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            reason = _unusable(os.fstat(descriptor), limit)
            if not reason:
                data = file.read(limit + 1)  # its reported size is wrong: /proc, or it is growing
                if len(data) <= limit:
                    return data
                del data  # no traceback frame may hold the content of the file
                reason = too_large(limit)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"it cannot be read: {error.strerror}")
    raise Unreadable(reason, too_large=reason == too_large(limit))


def check(path: Path, limit: int) -> str:
    """Return why a file that another library reads cannot be used, or ""."""
    try:
        found = path.stat()
    except OSError as error:
        return _REASONS.get(error.errno or 0, f"it cannot be read: {error.strerror}")
    return _unusable(found, limit) or ("" if os.access(path, os.R_OK) else _REASONS[errno.EACCES])


def _unusable(found: os.stat_result, limit: int) -> str:
    if stat.S_ISDIR(found.st_mode):
        return _REASONS[errno.EISDIR]
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    return too_large(limit) if found.st_size > limit else ""


def too_large(limit: int) -> str:
    return f"it is larger than {limit // 1024} KiB"


def undecodable(data: bytes) -> str:
    """Return why bytes are not UTF-8 text, or ""."""
    if data.startswith(_UTF_16) or data.count(0) > len(data) // 4:
        return "the encoding looks like UTF-16: save the file as UTF-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "it is not UTF-8 text"
    return ""


def writable_by_others(path: Path) -> bool:
    """Return whether users other than the owner may write or replace a file.

    The owner's own group (Debian and Red Hat create one for each user) and root's do not count as other users.
    """
    if os.name != "posix":
        return False
    try:
        file, folder = path.stat(), path.parent.stat()
    except OSError:
        return False  # reading it says what is wrong
    replaceable = bool(folder.st_mode & stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX
    return replaceable or _others_write(file)


def _others_write(found: os.stat_result) -> bool:
    shared = found.st_gid not in (0, found.st_uid)
    return bool(found.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if shared else 0)))


def readable_by_others(path: Path) -> bool:
    """Return whether users other than the owner may read a file."""
    if os.name != "posix":
        return False
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False  # reading it says what is wrong
