"""A secret is read when it is needed, and never shown."""

import copy
import os
import pickle
from unittest import mock

import pytest

from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Location
from dbconfig.settings.environment_variables import Environment
from dbconfig.settings.secret_sources import FILE_LIMIT, Secret, unusable

PLACE = Location("config/production.yaml", 3, 1)


def refusal(secret: Secret, folder=None) -> str:
    with pytest.raises(ConfigError) as caught:
        secret.read(folder)
    (problem,) = caught.value.problems
    assert (problem.slug, problem.key, problem.location) == ("secret-unreadable", "password", secret.location)
    assert not isinstance(caught.value.__context__, UnicodeError)
    assert ("it holds the password and nothing else" in problem.help) is (secret.kind == "file")
    return problem.message


@pytest.mark.parametrize("data", [b"p@ss", b"p@ss\n", b"p@ss\r\n"])
def test_a_file_is_the_secret_without_its_line_end(tmp_path, data):
    (tmp_path / "s").write_bytes(data)
    assert Secret("file", "s").read(tmp_path) == "p@ss"


def test_blanks_in_a_file_belong_to_the_secret(tmp_path):
    (tmp_path / "s").write_bytes(b" \xc3\xa9 \xe2\x82\xac \n")
    assert Secret("file", str(tmp_path / "s")).read() == " é € "


def test_a_secret_that_rotates_is_read_anew(tmp_path):
    secret, environ = Secret("file", "s"), {"PW": "one"}
    by_name = Secret("env", "PW")
    by_name.bind(Environment(environ))
    (tmp_path / "s").write_text("one")
    assert (secret.read(tmp_path), by_name.read()) == ("one", "one")
    (tmp_path / "s").write_text("two")
    environ["PW"] = "two\n"
    assert (secret.read(tmp_path), by_name.read()) == ("two", "two")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"hunter\ntwo", "it has more than one line, or a NUL character"),
        (b"hunter\0", "it has more than one line, or a NUL character"),
        (b"hunter\xff", "it is not UTF-8 text"),
        (b"x" * (FILE_LIMIT + 1), "it is larger than 64 KiB"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path, data, reason):
    (tmp_path / "s").write_bytes(data)
    assert refusal(Secret("file", "s", PLACE), tmp_path) == f"the secret file 's': {reason}"


def test_a_file_of_64_kib_is_read(tmp_path):
    (tmp_path / "s").write_bytes(b"x" * 65536)
    assert Secret("file", "s").read(tmp_path) == "x" * 65536
    assert FILE_LIMIT == 65536


def test_a_file_that_is_not_there_or_is_none_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert [refusal(Secret("file", name), tmp_path) for name in ("none", "fifo", "folder")] == [
        "the secret file 'none': it does not exist",
        "the secret file 'fifo': it is not a regular file",
        "the secret file 'folder': it is a folder, not a regular file",
    ]


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "environment variable PW is not set"),
        ({"PW": ""}, "environment variable PW is empty"),
        (
            {"PW": "a\nhunter"},
            "environment variable PW: it has more than one line, or a NUL character",
        ),
        ({"PW": "\udcff"}, "environment variable PW: it is not UTF-8 text"),
    ],
)
def test_a_variable_that_holds_no_secret_is_refused(environ, reason):
    secret = Secret("env", "PW", PLACE)
    secret.bind(Environment(environ))
    assert refusal(secret) == f"the password: {reason}"


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (Secret("text", "hunter"), "Secret('***')"),
        (Secret("text", {"password": "hunter"}), "Secret('***')"),
        (Secret("file", "/run/secrets/db"), "Secret(file='/run/secrets/db')"),
        (Secret("env", "PW"), "Secret(env='PW')"),
    ],
)
def test_a_secret_shows_its_place_or_a_mask(secret, text):
    assert repr(secret) == str(secret) == f"{secret}" == text
    assert copy.deepcopy(secret) is copy.copy(secret) is secret
    assert b"hunter" not in pickle.dumps(secret)
    assert not any("hunter" in repr(getattr(secret, name)) for name in dir(secret) if name != "read")


def test_a_pickled_secret_knows_its_place_but_a_literal_one_is_withheld(monkeypatch):
    monkeypatch.setenv("PW", "hunter")
    assert pickle.loads(pickle.dumps(Secret("env", "PW"))).read() == "hunter"
    literal = pickle.loads(pickle.dumps(Secret("text", "hunter")))
    assert refusal(literal) == ("the password: a pickle does not contain the secret: load the profile in this process")


def test_secrets_are_equal_where_they_say_the_same():
    assert Secret("text", "a") == Secret("text", "a") != Secret("text", "b")
    assert Secret("env", "A") != Secret("file", "A")
    assert hash(Secret("text", "a")) == hash(Secret("text", "b"))
    assert Secret("text", "a") != "a"
    assert Secret("text", "a") == mock.ANY  # it leaves the answer to what it does not know


def test_a_literal_secret_is_read_and_has_no_place():
    secret = Secret("text", "hunter")
    assert (secret.read(), secret.argument, secret.masked(), secret.written) == ("hunter", "", "***", False)
    assert Secret("text", "hunter", written=True).written


@pytest.mark.parametrize("kind", ["file", "env", "provider"])
def test_a_secret_that_is_read_elsewhere_shows_where(kind):
    secret = Secret(kind, "x")
    assert (secret.argument, secret.masked()) == ("x", {kind: "x"})


def test_a_provider_is_asked_by_the_settings_and_not_by_the_secret():
    message = "the password: a provider gives it to a database's settings only: read it by read_password()"
    assert refusal(Secret("provider", "vault", PLACE)) == message


def test_the_file_of_a_secret_is_one_of_this_machine(tmp_path):
    assert Secret("file", "s").file(tmp_path) == tmp_path / "s"
    assert Secret("file", "/run/secrets/s").file(tmp_path) is None  # of a container, in which nobody else lives
    assert Secret("text", "s").file(tmp_path) is None


@pytest.mark.parametrize("data", ["\ufeffhunter".encode(), "\ufeffhunter\n".encode()])
def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path, data):
    (tmp_path / "s").write_bytes(data)
    assert Secret("file", "s").read(tmp_path) == "hunter"
    secret = Secret("env", "PW")
    secret.bind(Environment({"PW": data.decode()}))
    assert secret.read() == "hunter"


def test_a_secret_that_was_saved_as_utf_16_is_told(tmp_path):
    (tmp_path / "s").write_bytes("hunter".encode("utf-16"))
    assert "UTF-16" in refusal(Secret("file", "s", PLACE), tmp_path)


def test_a_variable_that_is_a_reference_and_no_password_is_refused():
    secret = Secret("env", "PW")
    secret.bind(Environment({"PW": "${OTHER}"}))
    assert refusal(secret) == "the password: environment variable PW contains ${OTHER}, which is not set"
    secret.bind(Environment({"PW": "pa${OTHER}"}))  # strange, but a password may be so
    assert secret.read() == "pa${OTHER}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("p@ss \t€", ""),
        ("\ud7ff\ue000", ""),
        ("\ud800", "it is not UTF-8 text"),
        ("a\udfff", "it is not UTF-8 text"),
        ("a\rb", "it has more than one line, or a NUL character"),
    ],
)
def test_a_server_takes_what_is_one_line_of_text(text, reason):
    assert unusable(text) == reason
