"""`${VAR}` in a document."""

import pytest

from dbconfig.config.document import parse
from dbconfig.config.interpolation import interpolate, needs
from dbconfig.settings.environment_variables import Environment
from dbconfig.settings.value_types import plain

ENVIRON = {"A": "one", "EMPTY": "", "PORT": "5432", "PW": "p@ss/w%rd", "URL": "postgresql://u:p%40@h/d"}
ENVIRON |= {"NL": "x\n", "HOST": "db:5432"}


def replaced(value: str, key: str = "key"):
    root, _ = parse(f"{key}: '{value}'\n", "a.yaml")
    node, problems = interpolate(root, Environment(ENVIRON))
    return plain(node).get(key), problems


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${A}", "one"),
        ("<${A}${A}>", "<oneone>"),
        ("${NONE:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${NONE:-}", ""),
        ("${NONE:-${ALSO:-${A}}}", "one"),
        ("${NONE:-a{b}", "a{b"),
        ("${A:?needed}", "one"),
        ("$$A $${A}", "$A ${A}"),
        ("100$", "100$"),
        ("$1", "$1"),
        ("${NONE:-$${x}}", "${x}"),
    ],
)
def test_a_reference_is_replaced_as_in_the_shell_and_compose(written, value):
    assert replaced(written) == (value, [])


@pytest.mark.parametrize(
    ("written", "slug", "message", "help"),
    [
        ("${NONE}", "unset-variable", "environment variable NONE is not set", "set it, or give a default: ${NONE:-…}"),
        ("${EMPTY}", "empty-variable", "environment variable EMPTY is empty (EMPTY, environment)",
         "set it, or write ${EMPTY:-} to allow an empty value"),
        ("${NONE:?ask Ann}", "unset-variable", "ask Ann: environment variable NONE is not set", "set NONE"),
        ("${NONE:?}", "unset-variable", "it is required: environment variable NONE is not set", "set NONE"),
        ("${NONE:?ask ${A}}", "unset-variable", "ask ${A}: environment variable NONE is not set", "set NONE"),
        ("${EMPTY:?ask Ann}", "empty-variable", "ask Ann: environment variable EMPTY is empty (EMPTY, environment)",
         "set EMPTY"),
        ("$A", "bad-reference", "a `$` before a name is not a reference",
         "write ${NAME} for a variable, $$ for a dollar sign"),
        ("${A", "bad-reference", "`${` is not closed: its `}` is missing", "write ${NAME}"),
        ("${}", "bad-reference", "a reference needs the name of a variable: letters, digits and `_`",
         "write ${NAME}, or $$ for a dollar sign"),
        ("${A-x}", "bad-reference", "the name of a variable has letters, digits and `_` only",
         "write ${NAME}, ${NAME:-default} or ${NAME:?message}"),
    ],
)  # fmt: skip
def test_a_reference_that_cannot_be_replaced_is_told(written, slug, message, help):
    _, (problem,) = replaced(written)
    assert (problem.slug, problem.message, problem.help) == (slug, f"key: {message}", help)
    assert (str(problem.location), problem.key) == ("a.yaml:1:1", "key")


def test_defaults_are_nested_only_so_deep():
    _, (problem,) = replaced("${X:-" * 9 + "x" + "}" * 9)
    assert problem.message == "key: defaults are nested more than 8 deep"

    assert replaced("${X:-" * 8 + "x" + "}" * 8) == ("x", [])


def test_every_unset_variable_of_one_value_is_told():
    _, problems = replaced("postgresql://${U}:${P}@${H}/${U}", "url")
    assert [problem.message.split()[3] for problem in problems] == ["U", "P", "H"]


def test_a_variable_of_a_similar_name_is_pointed_at():
    root, _ = parse("a: ${DATABASE_ULR}\n", "a.yaml")
    _, (problem,) = interpolate(root, Environment({"DATABASE_URL": "x"}))
    assert problem.notes == ("a variable of a similar name is set: DATABASE_URL",)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("postgresql://app:${PW}@h/d", "postgresql://app:p%40ss%2Fw%25rd@h/d"),
        ("postgresql://app:${NL}@h/d", "postgresql://app:x@h/d"),
        ("${URL}", "postgresql://u:p%40@h/d"),
        ("${URL}?sslmode=require", "postgresql://u:p%40@h/d?sslmode=require"),
        ("postgresql://${A}:${PORT}/d", "postgresql://one:5432/d"),
        ("postgresql://u@h/d?application_name=${PW}", "postgresql://u@h/d?application_name=p%40ss%2Fw%25rd"),
        ("postgresql://u@h/${PW}", "postgresql://u@h/p%40ss/w%25rd"),
        ("${NONE:-postgresql}://h/d", "postgresql://h/d"),
        ("postgresql://u:${HOST}@h/d", "postgresql://u:db%3A5432@h/d"),
        ("postgresql://${HOST}/d@e", "postgresql://db:5432/d@e"),
        ("postgresql://u@${HOST}?a=b@c", "postgresql://u@db:5432?a=b@c"),
        ("postgresql://u@${HOST}", "postgresql://u@db:5432"),
        ("postgresql://u@h/${PW}?a=b", "postgresql://u@h/p%40ss/w%25rd?a=b"),
        ("postgresql://u@h?a=${PW}", "postgresql://u@h?a=p%40ss%2Fw%25rd"),
        ("postgresql://u@h/d?a=b&c=${PW}${A}", "postgresql://u@h/d?a=b&c=p%40ss%2Fw%25rdone"),
        ("postgresql://u@h/${A}${PW}", "postgresql://u@h/onep%40ss/w%25rd"),
        ("postgresql://${A}:${PW}@${HOST}/${PW}", "postgresql://one:p%40ss%2Fw%25rd@db:5432/p%40ss/w%25rd"),
    ],
)
def test_a_value_in_a_url_is_escaped_for_its_place(written, url):
    assert replaced(written, "url") == (url, [])


@pytest.mark.parametrize(
    ("host", "written"),
    [("db", "db"), ("db:5432", "db:5432"), ("::1", "[::1]"), ("[::1]:5432", "[::1]:5432"), ("/run/pg", "%2Frun%2Fpg")],
)
def test_a_host_in_a_url_may_be_an_address_or_a_socket(host, written):
    root, _ = parse("url: postgresql://u@${H}/d\n", "a.yaml")
    node, _ = interpolate(root, Environment({"H": host}))
    assert plain(node)["url"] == f"postgresql://u@{written}/d"


def test_a_value_is_not_read_again():
    root, _ = parse("a: ${X}\nb: {c: ['${X}']}\n", "a.yaml")
    node, problems = interpolate(root, Environment({"X": "$SECRET $$ : #"}))
    assert (plain(node), problems) == ({"a": "$SECRET $$ : #", "b": {"c": ["$SECRET $$ : #"]}}, [])


def test_a_variable_whose_value_still_has_a_reference_is_refused():
    # As after `docker run --env-file`, which expands nothing.
    root, _ = parse("url: ${X}\nusername: a${X}\n", "a.yaml")
    _, problems = interpolate(root, Environment({"X": "postgresql://${DB_USER}@h/d"}))
    assert [(problem.slug, problem.key) for problem in problems] == [
        ("bad-reference", "url"),
        ("bad-reference", "username"),
    ]
    assert problems[0].message == "url: environment variable X contains `${DB_USER}`, which was not expanded"


@pytest.mark.parametrize(("key", "text"), [("password", "${X}"), ("url", "postgresql://u:${X}@h/d")])
def test_a_password_may_contain_what_looks_like_a_reference(key, text):
    root, _ = parse(f"{key}: {text}\n", "a.yaml")
    node, problems = interpolate(root, Environment({"X": "a${HOME}b"}))
    assert (problems, "HOME" in plain(node)[key]) == ([], True)
    (problem,) = interpolate(root, Environment({"X": "${DB_PASSWORD}"}))[1]
    assert problem.slug == "bad-reference"


def test_a_dollar_that_is_written_twice_is_text_in_a_url_too():
    assert replaced("postgresql://u:a$${b}@h/d", "url")[0] == "postgresql://u:a%24{b}@h/d"


def test_a_document_says_which_variables_it_names():
    root, _ = parse("a: ${X}\nb: [{c: '${Y:-${Z}}'}]\nd: $$\ne: ${bad\n", "a.yaml")
    found = needs(root, Environment({}))
    assert [(need.name, need.key, need.required, need.whole) for need in found] == [
        ("X", "a", True, True),
        ("Y", "b.c", False, True),
        ("Z", "b.c", True, True),
    ]
    assert [need.name for need in needs(root, Environment({"Y": "set"}))] == ["X", "Y"]


def test_each_variable_of_a_key_is_named_once_and_whether_the_value_is_more_than_it():
    root, _ = parse("a: ${X}${X}\nb: x${X:?needed}\nc: ${Y:-z}\n", "a.yaml")
    found = [(need.name, need.key, need.required, need.whole, need.late) for need in needs(root, Environment({}))]
    assert found == [
        ("X", "a", True, False, False),
        ("X", "b", True, False, False),
        ("Y", "c", False, True, False),
    ]


def test_the_variable_of_a_password_is_named_as_one_that_is_read_later():
    root, _ = parse("password: {env: PW}\ndatabases: {a: {password: {env: X}}}\nenv: PW\n", "a.yaml")
    found = [(need.name, need.key, need.required, need.whole, need.late) for need in needs(root, Environment({}))]
    assert found == [("PW", "password", True, True, True), ("X", "databases.a.password", True, True, True)]


def test_a_value_names_the_variables_that_it_was_made_from():
    root, _ = parse("a: '${A}-${NONE:-${PW}}'\nb: x$$\nc: x\nd: {e: 1}\n", "a.yaml")
    node, _ = interpolate(root, Environment(ENVIRON))
    values = {name: entry.node for name, entry in node.entries.items()}
    assert (values["a"].value, values["a"].variables) == ("one-p@ss/w%rd", ("A", "NONE", "PW"))
    assert (values["b"].value, values["b"].variables) == ("x$", ())
    assert node.entries["c"] is root.entries["c"]
    assert needs(node, Environment({})) == ()  # what came from a variable refers to none
    again, problems = interpolate(node, Environment({}))
    assert (plain(again), problems) == (plain(node), [])


def test_a_value_of_yaml_1_1_is_none_that_came_from_a_variable():
    root, _ = parse("a: ${X}\nb: ${X:-no}\n", "a.yaml")
    node, _ = interpolate(root, Environment({"X": "no"}))
    assert [entry.node.ambiguity for entry in node.entries.values()] == ["", ""]


def test_an_item_that_cannot_be_replaced_is_missing():
    root, _ = parse("a: [x, '${NONE}', '${A}', '${']\n", "a.yaml")
    node, problems = interpolate(root, Environment(ENVIRON))
    assert plain(node) == {"a": ["x", "one"]}
    assert [problem.slug for problem in problems] == ["unset-variable", "bad-reference"]


def test_a_variable_of_another_name_is_not_pointed_at():
    root, _ = parse("a: ${DATABASE_URL}\n", "a.yaml")
    _, (problem,) = interpolate(root, Environment({"DATA": "x", "HOME": "y"}))
    assert problem.notes == ()
