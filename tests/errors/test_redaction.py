"""What of a value may be shown."""

import pytest

from dbconfig.errors.redaction import MASK, PLAIN_KEYS, is_secret_name, masked_url, shown, shown_name
from dbconfig.settings.key_kinds import kind
from dbconfig.settings.keys import Keys, ReplicaKeys


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "pasword",
        "passwrod",
        "db-password",
        "pswd",
        "pw",
        "pin",
        "passwd",
        "sslpassword",
        "client_secret",
        "api_key",
        "apiKey",
        "access_token",
        "init_command",
        "private-key",
        "credentials",
        "passphrase",
        "scram_client_key",
        "scram_server_key",
        "encryption_key",
        "jwt",
    ],
)
def test_a_name_that_may_hold_a_secret_is_known_even_misspelt(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "pool_size",
        "port",
        "username",
        "host",
        "url",
        "database",
        "logging_token",
        "password_encryption",
        "sslkey",
        "ssl_key",
        "sql_require_primary_key",
        "server_public_key",
        "",
    ],
)
def test_a_name_that_holds_no_secret_is_not_masked(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("pool_size", "five", "five"),
        ("pool_size", "-3", "-3"),
        ("pool_recycle", "30m", "30m"),
        ("password", "hunter", MASK),
        ("pool_size", "h-u-n-t-e-r", MASK),
        ("host", "db.internal", "db.internal"),
        ("host", "p@ss", MASK),
        ("echo", "s3cret", MASK),
        ("pool_recycle", "1 hour", "1 hour"),
        ("statement_timeout", "1h30m", "1h30m"),
        ("pool_size", "5;", "5;"),
        ("port", "54x2", "54x2"),
        ("isolation_level", "read commited", "read commited"),
        ("pool_size", "8f14e45fceea167a", MASK),
        ("url", "${DATABASE_URL}", "${DATABASE_URL}"),
        ("password", "${DB_PASSWORD:-hunter}", "${DB_PASSWORD:-***}"),
        ("url", "postgresql://${U}:hunter@${H}/d", "postgresql://${U}***${H}***"),
        ("url", "postgresql://hunter:${PORT}/d", "postgresql://***${PORT}***"),
        ("logging_name", "one of a hunter", "one of a hunter"),
        ("url", "postgresql://db.internal/shop", "postgresql://db.internal/shop"),
        ("anything", "postgresql://app:hunter@db/shop", "postgresql://***"),
    ],
)
def test_a_value_is_shown_only_where_it_can_be_no_secret(key, text, expected):
    assert shown(key, text) == expected


def test_the_keys_whose_mistakes_are_shown_are_those_that_hold_no_text():
    plain = {"integer", "seconds", "seconds or false", "seconds or flag", "flag", "choice", "level"}
    fields = {**Keys.model_fields, **ReplicaKeys.model_fields}
    assert {key for key, field in fields.items() if kind(field) in plain} == PLAIN_KEYS


def test_a_value_with_a_known_secret_in_it_is_masked_under_every_key():
    assert shown("username", "hunter", {"hunter"}) == MASK


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://db.internal:5432/shop", "postgresql://db.internal:5432/shop"),
        ("postgresql://[::1]:5432/shop", "postgresql://[::1]:5432/shop"),
        ("sqlite:///data/app.db", "sqlite:///data/app.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://app:hunter@db/shop", "postgresql://***"),
        ("postgresql://app:hunter/shop", "postgresql://***"),  # the host was forgotten
        ("postgresql://db/shop?password=hunter", "postgresql://***"),
        ("hunter is@my://secret", MASK),
        ("sqlite://app:hunter@h/d", "sqlite://***"),  # no file
        ("postgresql:///tmp:hunter", "postgresql://***"),  # nor of a system that has files
        ("postgresql://", "postgresql://"),
    ],
)
def test_a_url_is_shown_only_without_a_user_and_a_query(url, expected):
    assert masked_url(url) == expected


def test_an_address_in_the_place_of_a_name_is_masked():
    assert shown_name("pool_sise") == "pool_sise"
    assert shown_name("postgresql://app:hunter@db/shop") == MASK
    assert shown_name("app:hunter@db") == shown_name("://hunter") == MASK
