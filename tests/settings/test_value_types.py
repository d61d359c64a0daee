"""What each type of setting takes, and what it says of the rest."""

import pytest
from pydantic import ConfigDict, ValidationError, create_model

from dbconfig.config.document import parse
from dbconfig.settings import choices, durations, hosts, url_parsing, value_types
from dbconfig.settings.choices import choice
from dbconfig.settings.located_values import Scalar
from dbconfig.settings.secret_sources import Secret
from dbconfig.settings.url_parsing import DatabaseURL


def node(text: str):
    """Return a value as a document has it."""
    root, _ = parse(f"key: {text}\n", "a.yaml")
    return root.entries["key"].node


def take(kind, text: str):
    model = create_model("model", __config__=ConfigDict(arbitrary_types_allowed=True), value=(kind, ...))
    return model(value=node(text)).value


def refusal(kind, text: str) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        take(kind, text)
    (details,) = caught.value.errors(include_input=False)
    (finding,) = details["ctx"]["findings"]
    return finding.slug, finding.message


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *((value_types.WholeNumber, text, value) for text, value in (("5", 5), ("'5'", 5), ("-1", -1), ("'0'", 0))),
        *((durations.Seconds, text, value) for text, value in (("5", 5.0), ("1.5", 1.5), ("500ms", 0.5), ("5s", 5.0))),
        *((durations.Seconds, text, value) for text, value in (("30m", 1800.0), ("1h", 3600.0), ("1d", 86400.0))),
        *((durations.Seconds, text, value) for text, value in (("-1", -1.0), ("'-1'", -1.0), ("'5 s'", 5.0))),
        *((value_types.Flag, text, True) for text in ("true", "yes", "on", "'true'", "'TRUE'")),
        *((value_types.Flag, text, False) for text in ("false", "no", "off", "'false'", "'No'")),
        *(
            (hosts.Hosts, text, text)
            for text in ("db", "db.internal", "127.0.0.1", "db_1", "bücher.example", "/run/pg")
        ),
        *((hosts.Hosts, text, "::1") for text in ("'::1'", "'[::1]'", "'0:0:0:0:0:0:0:1'")),
        (hosts.Hosts, "'fe80::1%eth0'", "fe80::1%eth0"),
        (choices.DriverName, "PostgreSQL+Psycopg", "postgresql+psycopg"),
        (value_types.IsolationLevel, "read_committed", "READ COMMITTED"),
        (value_types.IsolationLevel, "repeatable-read", "REPEATABLE READ"),
        (url_parsing.Query, "{a: 1, b: [x, 2]}", {"a": ("1",), "b": ("x", "2")}),
        (value_types.Options, "{a: 1, b: {c: [true]}}", {"a": 1, "b": {"c": [True]}}),
    ],
)
def test_a_value_is_taken_as_people_write_it(kind, text, value):
    assert take(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text", "slug", "message"),
    [
        (value_types.WholeNumber, "five", "wrong-type", "must be a whole number, not text"),
        (value_types.WholeNumber, "1.5", "wrong-type",
         "must be a whole number, not one with a decimal point or an exponent"),
        (value_types.WholeNumber, "true", "wrong-type", "must be a whole number, not a boolean"),
        (value_types.WholeNumber, "[5]", "wrong-type", "must be a whole number, not a list"),
        (value_types.WholeNumber, "010", "ambiguous-value",
         "must be a whole number, but YAML 1.1 reads this as an octal number"),
        (value_types.WholeNumber, "1_000", "ambiguous-value",
         "must be a whole number, but YAML 1.1 reads this as a number"),
        (durations.Seconds, "5 minutes", "wrong-type", "must be a number of seconds or a duration, not text"),
        (durations.Seconds, ".inf", "wrong-type", "must be a finite number of seconds"),
        (durations.Seconds, "1:30", "ambiguous-value",
         "must be a number of seconds or a duration; YAML 1.1 reads this as a number in base 60"),
        (value_types.Flag, "1", "wrong-type", "must be true or false, not a number"),
        (value_types.Flag, "maybe", "wrong-type", "must be true or false, not text"),
        (value_types.Name, "no", "ambiguous-value", "must be text, but YAML 1.1 reads this as a boolean"),
        (value_types.Name, "5", "wrong-type", "must be text (a string), not a number"),
        (value_types.Name, "{a: 1}", "wrong-type", "must be text (a string), not a mapping"),
        (value_types.Name, "''", "missing-value", "is empty"),
        (value_types.Name, '"a\\nb"', "invalid-value", "contains a line break or another control character"),
        (hosts.Hosts, "postgresql://u:hunter@h/d", "invalid-value", "is a URL, not a host"),
        (hosts.Hosts, "db:5432", "invalid-value", "is not a host name: it contains ':'"),
        (hosts.Hosts, "[a, b, a]", "invalid-value", "names 'a' twice"),
        (hosts.Hosts, "['::1', '0:0::1']", "invalid-value", "names '::1' twice"),
        (hosts.Hosts, "u@db", "invalid-value", "is not a host name: it contains '@'"),
        (hosts.Hosts, "-db", "invalid-value", "is not a host name"),
        (choices.DriverName, "postgresql://u:hunter@h/d", "invalid-value", "is a URL, not the name of a driver"),
        (url_parsing.URL, "5", "wrong-type", "must be text (a string), not a number"),
        (url_parsing.URL, "postgresql://u:p@hunter@h/d", "invalid-url",
         "not a database URL: a character of the user name "
         "or password is not encoded: it is ambiguous where the host begins"),
        (value_types.Password, "12345", "wrong-type", "must be text (a string), not a number"),
        (value_types.Password, "012345", "ambiguous-value", "must be text, but YAML 1.1 reads this as an octal number"),
        (value_types.Password, "''", "missing-value", "is empty"),
        (value_types.Password, '"hunter\\ntwo"', "invalid-value",
         "it has more than one line, or a NUL character"),
        (value_types.Password, "{fiel: hunter}", "invalid-value",
         "must be text, or a mapping with one key: `file`, `env` or `provider`"),
        (value_types.Password, "{file: a, env: b}", "invalid-value",
         "must be text, or a mapping with one key: `file`, `env` or `provider`"),
        (value_types.Password, "{file: 3}", "wrong-type", "`file` must be text in one line"),
        (value_types.Options, "text", "wrong-type", "must be a mapping of names to values, not text"),
        (value_types.Options, "{a: {b: }}", "empty-value", "'b' has no value"),
        (value_types.Variables, "{a: null}", "empty-value", "'a' has no value"),
        (url_parsing.Query, "{a: ~}", "empty-value", "'a' has no value"),
        (url_parsing.Query, "{a: true}", "wrong-type", "'a' must be text or a number, or a list of them"),
        (url_parsing.Query, "{a: {b: c}}", "wrong-type", "'a' must be text or a number, or a list of them"),
        (url_parsing.Query, "{a: {password: hunter}}", "wrong-type", "'a' must be text or a number, or a list of them"),
        (url_parsing.Query, "{user: me}", "given-twice",
         "query has the parameter 'user': `username` is a key of its own"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_taken_is_told_without_being_repeated(kind, text, slug, message):
    assert refusal(kind, text) == (slug, message)


def test_a_password_is_text_or_the_place_of_one():
    assert take(value_types.Password, "p@ss") == Secret("text", "p@ss")
    assert take(value_types.Password, "|\n  p@ss\n") == Secret("text", "p@ss")
    assert take(value_types.Password, "{file: /run/secrets/db}") == Secret("file", "/run/secrets/db")
    assert take(value_types.Password, "{env: DB_PASSWORD}") == Secret("env", "DB_PASSWORD")


def test_a_url_that_is_read_already_stays_as_it_is():
    url = DatabaseURL("sqlite")
    assert url_parsing.database_url(url) is url
    assert url_parsing.database_url(Scalar(url, node("x").location)) is url


@pytest.mark.parametrize(
    ("text", "value"), [("false", False), ("30", 30), ("1.5", 1.5), ("x", "x"), ("007", "007"), ("", ""), ("~", None)]
)
def test_a_variable_in_a_free_mapping_is_read_as_yaml_because_false_is_true_to_drivers(text, value):
    variable = Scalar(text, node("x").location, variables=("X",))
    root, _ = parse("key: {ssl_disabled: x, list: [x]}\n", "a.yaml")
    mapping = root.entries["key"].node
    entries = dict(mapping.entries)
    entries["ssl_disabled"] = type(entries["ssl_disabled"])(variable, mapping.location)
    found = value_types.options(type(mapping)(entries, mapping.location))
    assert found == {"ssl_disabled": value, "list": ["x"]}
    assert type(found["ssl_disabled"]) is type(value)


def test_a_secret_in_a_free_mapping_is_kept_as_one_however_deep():
    found = take(
        value_types.Options, "{sslpassword: hunter, ssl: {ca: x, password: hunter}, list: [{token: hunter}], a: {b: c}}"
    )
    assert {name: value.read() if isinstance(value, Secret) else value for name, value in found.items()} == {
        "sslpassword": "hunter",
        "ssl": {"ca": "x", "password": "hunter"},
        "list": [{"token": "hunter"}],
        "a": {"b": "c"},
    }
    assert "hunter" not in repr(found)


def test_a_choice_is_taken_in_any_case_and_a_near_miss_is_told():
    validate = choice("QueuePool", "NullPool", also={"none": None})
    assert (validate("nullpool"), validate("none")) == ("NullPool", None)
    with pytest.raises(Exception, match="must be one of QueuePool, NullPool"):
        validate("NullPol")
