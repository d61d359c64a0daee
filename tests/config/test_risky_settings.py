"""What is no error, but is said in the log."""

import logging
import os

import pytest

from dbconfig import Profile
from dbconfig.cli.commands.check.network import demands_tls

WEAK = "the password is easy to guess"
PLAIN = "the password is in plain text in a file that others can read: write ${VAR} or {file: …}"


@pytest.fixture
def warned(project, caplog):
    """Load a profile and return what was said."""

    def load(files, environ=None, profile=None):
        with caplog.at_level(logging.WARNING, "dbconfig"):
            project.load(files, environ, profile)
        return caplog.messages

    return load


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("url: sqlite:///a.db\nmax_overflow: -1", ["config/development.yaml:2:1: profile development: max_overflow: "
         "-1 removes the limit: an unlimited pool does not protect the server"]),
        ("url: sqlite:///a.db\necho: true\nprotected: true\nhide_parameters: true",
         ["config/development.yaml:2:1: profile "
         "development: echo: every statement of development is logged, although the database is protected"]),
        ("url: sqlite:///a.db\necho: true\nprotected: true", ["config/development.yaml:2:1: profile development: echo: "
         "every statement of development is logged, although the database is protected, with its parameters "
         "(hide_parameters is not set)"]),
        ("url: mysql://h/d\nconnect_args: {local_infile: true}", ["config/development.yaml:2:1: profile development: "
         "connect_args: 'local_infile' lets the server read files of this machine"]),
        *((f"url: mysql://h/d?{option}", []) for option in ("local_infile=0", "local_infile=False")),
        ("url: mysql+mysqlconnector://h/d?allow_local_infile=off", []),
        ("url: mysql://h/d\nquery: {local_infile: 0}", []),
        ("url: mysql://h/d?local_infile=1", ["config/development.yaml:1:1: profile development: "
         "query: 'local_infile' lets the server read files of this machine"]),
        ("url: mysql://h/d?read_default_file=0", ["config/development.yaml:1:1: profile development: query: "
         "'read_default_file' reads host, user, and password from another file if the profile does not set them"]),
        ("url: postgresql://u:s3cret-x@h/d", [f"config/development.yaml:1:1: profile development: url: {PLAIN}"]),
        ("url: postgresql://u@h/d\npassword: s3cret-x",
         [f"config/development.yaml:2:1: profile development: password: {PLAIN}"]),
        ("url: sqlite:///a.db\ndatabases: {a: {url: 'mysql://h/d', max_overflow: -1}}", [
         "config/development.yaml:2:37: profile development: databases.a.max_overflow: "
         "-1 removes the limit: an unlimited pool does not protect the server"]),
        ("url: postgresql://u:s3cret-x@localhost/d", []),
        ("url: sqlite:///a.db\necho: true", []),
        *((f"url: postgresql://u@localhost/d\npassword: {written}", [
            "config/development.yaml:2:1: profile development: password: the ` #` after it begins a comment, which is "
            "not part of the password"]) for written in ("s3cret #1", "s3cret\t#x y")),
        *((f"url: postgresql://u@localhost/d\npassword: {written}", [])
          for written in ("s3cret # x", "s3cret#1", "'s3cret #1'", "'s3cret' ## x", "s3cret")),
    ],
)  # fmt: skip
def test_what_somebody_should_act_on_is_said_with_its_place(warned, text, messages):
    assert warned(text + "\n") == messages


def test_a_default_password_of_an_exposed_database_is_said_wherever_it_comes_from(warned):
    text = "url: postgresql://u:${PW}@h/d\n"
    assert warned(text, {"PW": "postgres"}) == [f"config/development.yaml:1:1: profile development: url: {WEAK}"]


def test_a_password_from_a_variable_or_in_a_file_of_its_owner_is_fine(project, warned):
    assert warned("url: postgresql://u:${PW}@h/d\n", {"PW": "s3cret-x"}) == []
    project.write("url: postgresql://u:s3cret-x@h/d\n")
    (project.config / "development.yaml").chmod(0o600)
    assert warned({}) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_that_others_may_write_is_said(project, warned):
    text = "url: postgresql://app@127.0.0.1/d\npassword: {file: secret}\n"
    project.write({"development.yaml": text, "../secret": "x"})
    (project.root / "secret").chmod(0o602)
    (project.config / "development.yaml").chmod(0o602)
    assert [message.rpartition(": ")[2] for message in warned({})] == [
        "'config/development.yaml' can be written or replaced by other users of this machine",
        "the secret file 'secret' can be written or replaced by other users",
    ]


@pytest.mark.parametrize(("mode", "is_said"), [("verify-full", False), ("require", True)])
def test_a_drivers_own_word_for_sslmode_counts(warned, mode, is_said):
    url = f"postgresql+asyncpg://app@db.internal/d?ssl={mode}"
    messages = warned(f"url: {url}\nprotected: true\n")
    assert any("certificate is not verified" in message for message in messages) == is_said
    settings = Profile(name="p", url=url).databases["default"]
    assert demands_tls(settings)
    assert not demands_tls(Profile(name="p", url=url.replace(mode, "prefer")).databases["default"])


def test_the_sslmode_key_counts_on_every_system(warned):
    text = "url: {}://app@db.internal/d\nprotected: true\nsslmode: verify-full\nsslrootcert: system\n"
    for system in ("postgresql", "mysql"):
        assert warned(text.format(system)) == []
