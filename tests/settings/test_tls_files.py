"""Certificates: regular files of a limited size, by whichever parameter they are named."""

import os

import pytest

from dbconfig import ConfigError, Profile
from dbconfig.settings import small_files, tls

NAMES = {"postgresql": "sslrootcert", "mysql": "ssl_ca"}


def settings_with(system, where, path):
    if where == "key":
        named = {"url": f"{system}://u@h/d", "sslmode": "verify-full", "sslrootcert": path}
    elif where == "url":
        named = {"url": f"{system}://u@h/d?{NAMES[system]}={path}"}
    else:
        named = {"url": f"{system}://u@h/d", where: {NAMES[system]: path}}
    return Profile(name="p", **named).databases["default"]


@pytest.mark.parametrize("where", ["key", "url", "query", "connect_args"])
@pytest.mark.parametrize("system", NAMES)
def test_a_certificate_that_is_too_large_or_a_pipe_is_refused_before_anything_connects(tmp_path, system, where):
    large, pipe, good = tmp_path / "large.pem", tmp_path / "pipe", tmp_path / "good.pem"
    with large.open("wb") as file:
        file.truncate(small_files.CERTIFICATES + 1)
    os.mkfifo(pipe)
    good.write_text("x")
    for path, reason in ((large, "it is larger than 8192 KiB"), (pipe, "it is not a regular file")):
        with pytest.raises(ConfigError, match=reason) as caught:
            tls.check_files(settings_with(system, where, str(path)))
        assert [problem.slug for problem in caught.value.problems] == ["file-unreadable"]
    tls.check_files(settings_with(system, where, str(good)))
