"""A database URL, as a provider's console or a `DATABASE_URL` has it."""

import pytest
from pydantic_core import PydanticCustomError

from dbconfig import Profile, Registry
from dbconfig.engine import create
from dbconfig.errors.problem import Location
from dbconfig.settings.located_values import Scalar
from dbconfig.settings.secret_sources import Secret
from dbconfig.settings.url_parsing import DatabaseURL, InvalidURL, database_url, parse_url, parsed_url, query


def parts(text: str) -> tuple:
    url = parse_url(text)
    password = url.password.read() if url.password else None
    return url.drivername, url.username, password, url.host, url.port, url.database


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Neon, Supabase, Heroku, RDS, PlanetScale, Railway
        ("postgresql://alex:AbC123@ep-cool-1.us-east-2.aws.neon.tech/shop?sslmode=require&channel_binding=require",
         ("postgresql", "alex", "AbC123", "ep-cool-1.us-east-2.aws.neon.tech", None, "shop")),
        ("postgresql://postgres.abcd:p%40ss@aws-0-eu.pooler.supabase.com:6543/postgres",
         ("postgresql", "postgres.abcd", "p@ss", "aws-0-eu.pooler.supabase.com", 6543, "postgres")),
        ("postgres://u1:p0@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d1",
         ("postgres", "u1", "p0", "ec2-1-2-3-4.compute-1.amazonaws.com", 5432, "d1")),
        ("postgresql://admin:pw@mydb.c9akciq32.eu-west-1.rds.amazonaws.com/shop?sslmode=verify-full&sslrootcert=/c.pem",
         ("postgresql", "admin", "pw", "mydb.c9akciq32.eu-west-1.rds.amazonaws.com", None, "shop")),
        ("mysql://u:pscale_pw_a-B@aws.connect.psdb.cloud/shop?ssl_ca=/etc/ssl/cert.pem",
         ("mysql", "u", "pscale_pw_a-B", "aws.connect.psdb.cloud", None, "shop")),
        ("postgresql://postgres:pw@containers-us-west-1.railway.app:7432/railway",
         ("postgresql", "postgres", "pw", "containers-us-west-1.railway.app", 7432, "railway")),
        # compose and Kubernetes
        ("postgresql://app:app@db/app", ("postgresql", "app", "app", "db", None, "app")),
        ("mysql+pymysql://root@mysql-0.mysql.default.svc:3306/x",
         ("mysql+pymysql", "root", None, "mysql-0.mysql.default.svc", 3306, "x")),
        # as .env files and shells leave them
        ("\"postgresql://u:p@h/d\"\n", ("postgresql", "u", "p", "h", None, "d")),
        (" 'postgresql://u:p@h/d' ", ("postgresql", "u", "p", "h", None, "d")),
        ("postgresql://u:p@h/d\r\n", ("postgresql", "u", "p", "h", None, "d")),
        # hosts
        ("postgresql://u:p@[2001:db8::1]:5432/d", ("postgresql", "u", "p", "2001:db8::1", 5432, "d")),
        ("postgresql://u:p@[fe80::1%25eth0]/d", ("postgresql", "u", "p", "fe80::1%eth0", None, "d")),
        ("postgresql://u:p@%2Fvar%2Frun%2Fpostgresql/d", ("postgresql", "u", "p", "/var/run/postgresql", None, "d")),
        ("postgresql://u:p@/d?host=/var/run/postgresql", ("postgresql", "u", "p", None, None, "d")),
        ("postgresql://u:p@bücher.example/d", ("postgresql", "u", "p", "bücher.example", None, "d")),
        ("postgresql://db_1/d", ("postgresql", None, None, "db_1", None, "d")),
        ("postgresql:///d", ("postgresql", None, None, None, None, "d")),
        # passwords
        ("postgresql://u:a:b@h/d", ("postgresql", "u", "a:b", "h", None, "d")),
        ("postgresql://u:a+b@h/d", ("postgresql", "u", "a+b", "h", None, "d")),
        ("postgresql://u:%23%3F%2F%25%C3%A9@h/d", ("postgresql", "u", "#?/%é", "h", None, "d")),
        ("postgresql://u:@h/d", ("postgresql", "u", None, "h", None, "d")),
        ("postgresql://:pw@h/d", ("postgresql", None, "pw", "h", None, "d")),
        # SQLite
        ("sqlite://", ("sqlite", None, None, None, None, None)),
        ("sqlite:///:memory:", ("sqlite", None, None, None, None, ":memory:")),
        ("sqlite:///data/my app#1.db", ("sqlite", None, None, None, None, "data/my app#1.db")),
        ("sqlite:////srv/app.db", ("sqlite", None, None, None, None, "/srv/app.db")),
        ("sqlite:///C:\\data\\app.db", ("sqlite", None, None, None, None, "C:\\data\\app.db")),
        ("sqlite:///file:app.db?mode=ro&uri=true", ("sqlite", None, None, None, None, "file:app.db")),
    ],
)  # fmt: skip
def test_a_url_is_read_as_its_parts(text, expected):
    assert parts(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "help"),
    [
        ("", "it is empty", "sqlite:///data/app.db"),
        ("\"", "it does not begin with a scheme", "write scheme://user@host/database"),
        ("postgresql://u:hunter?a@h/d", "a character of the user name or password is not encoded", "percent-encode"),
        ("localhost:5432/hunter", "it does not begin with a scheme", "write scheme://user@host/database"),
        ("postgresql:/u:hunter@h/d", "it does not begin with a scheme", "write scheme://user@host/database"),
        ("psql 'postgresql://u:hunter@h/d'", "it is a command, not only a URL", "remove the command"),
        ("jdbc:postgresql://h/d?password=hunter", "it is a JDBC URL", "remove `jdbc:`"),
        ("host=h dbname=d password=hunter", "it is a list of keywords, not a URL", "write them as the keys"),
        ("postgresql://u:p@hunter@h/d", "a character of the user name or password is not encoded", "percent-encode"),
        ("postgresql://u:hun/ter@h/d", "a character of the user name or password is not encoded", "percent-encode"),
        ("postgresql://u:hun?ter@h/d", "a character of the user name or password is not encoded", "percent-encode"),
        ("postgresql://u:hun#ter@h/d", "a `#` in a URL ends it", "percent-encode"),
        ("postgresql://u:hun ter@h/d", "it contains a space or a control character", "percent-encode"),
        *((f"postgresql://u:hun{ch}ter@h/d", "it contains a space or a control character", "percent-encode")
          for ch in "\t\0\x1b\x7f\xa0\u200b\u2028"),
        ("sqlite:///a\x1b.db", "it contains a space or a control character", "percent-encode"),
        ("postgresql://u:hun%ter@h/d", "a `%` in it is not followed by two hexadecimal digits", "percent-encode"),
        ("postgresql://u:hun%ffter@h/d", "it encodes characters that are not UTF-8", "percent-encode"),
        ("postgresql://u:hun%00ter@h/d", "its password: it has more than one line, or a NUL character", ""),
        ("postgresql://u:hunter/d", "what follows the user name is not `host:port`", "percent-encode"),
        ("postgresql://u:p@2001:db8::1/d", "what follows the user name is not `host:port`",
         "write an IPv6 address in brackets"),
        ("postgresql://u:p@[hunter]/d", "the text in brackets is not an IPv6 address", "[::1]"),
        ("postgresql://u:p@h:/d", "the port after the `:` is empty", "write the port, or remove the colon"),
        ("postgresql://u:p@h:99999/d", "its port is not between 1 and 65535", ""),
        ("postgresql://u:p@h:0/d", "its port is not between 1 and 65535", ""),
        ("postgresql://u:p@h1,h2/d", "it names several hosts",
         "write them into the query: ?host=one:5432&host=two:5432"),
        ("postgresql://u:p@<hunter>/d", "its host is not a host name", "percent-encode"),
        ("postgresql://u:[YOUR-PASSWORD]@h/d", "it still contains a placeholder", "replace it with"),
        ("postgresql://<user>:<password>@<host>/d", "it still contains a placeholder", "replace it with"),
        ("postgresql://u:hunter@<host>:5432/d", "it still contains a placeholder", "replace it with"),
        ("postgresql://u:p@h/d?sslmode=", "its query has a parameter without a value", "?name=value&name=value"),
        ("postgresql://u:p@h/d?sslmode=require&", "its query has a parameter without a value", "?name=value"),
        ("postgresql://u:p@h/d?sslmode=a?b=c", "it has two `?`: a second parameter follows an `&`", "?name=value"),
        ("postgresql://u@h/d?password=hunter", "its query has the parameter 'password': `password` is a key", ""),
        ("postgresql://u@h/d?plugin=os", "its query has the parameter 'plugin': a plugin is code", ""),
        ("postgresql://u@h/d?sslmode=require&sslmode=disable", "its query has the parameter 'sslmode' twice",
         "remove one of the two"),
        ("sqlite:///a.db?timeout=5&timeout=6", "its query has the parameter 'timeout' twice", "remove one"),
        *((f"postgresql://{rest}", "it encodes a line break or another control character", "remove it")
          for rest in ("u%0a:hunter@h/d", "u@h/d%00", "u@h/d?application_name=a%1bb", "u@%2Ftmp%0a/d")),
        ("sqlite:///a%00.db", "it encodes a line break or another control character", "remove it"),
        ("mongodb://u:hunter@h/d", "unsupported database 'mongodb'", "write sqlite:///file"),
        ("sqlite://data.db", "a SQLite URL has three slashes before a relative path", "sqlite:///data/app.db"),
    ],
)  # fmt: skip
def test_what_could_be_taken_for_something_else_is_refused_without_repeating_it(text, message, help):
    with pytest.raises(InvalidURL) as caught:
        parse_url(text)
    assert str(caught.value).startswith(message)
    assert caught.value.help.startswith(help)
    assert "hunter" not in str(caught.value) + caught.value.help
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, ValueError)


def test_of_a_generic_dialect_nobody_knows_which_parameter_may_stand_twice():
    assert parse_url("mssql+pyodbc://u@h/d?x=1&x=2").query == {"x": ("1", "2")}


def test_the_query_is_read_and_what_is_secret_in_it_is_kept_as_a_secret():
    url = parse_url("postgresql://u@h/d?host=a:1&host=b:2&sslpassword=hunter&options=-c%20x%3D1+y")
    assert url.query["host"] == ("a:1", "b:2")
    assert url.query["options"] == ("-c x=1 y",)
    assert url.query["sslpassword"] == (Secret("text", "hunter"),)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "postgresql://u:hunter@[::1]:5432/d?a=b&sslpassword=hunter",
            "postgresql://u:***@[::1]:5432/d?a=b&sslpassword=***",
        ),
        ("postgresql://u@%2Frun%2Fpg/d", "postgresql://u@%2Frun%2Fpg/d"),
        ("postgresql://:hunter@h", "postgresql://:***@h"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("sqlite://", "sqlite://"),
    ],
)
def test_a_url_prints_itself_without_its_secrets(text, shown):
    assert str(parse_url(text)) == repr(parse_url(text)) == shown


def test_a_part_can_be_taken_out():
    url = parse_url("postgresql://u:p@h/d")
    assert str(url.without("password")) == "postgresql://u@h/d"
    assert url.without("drivername").drivername == ""


def test_an_at_sign_in_the_value_of_a_parameter_is_no_end_of_a_user():
    assert parse_url("postgresql://h/d?application_name=a@b").query == {"application_name": ("a@b",)}


@pytest.mark.parametrize(
    ("text", "backend", "in_memory"),
    [
        ("postgresql+psycopg://h/d", "postgresql", False),
        ("mariadb://h/:memory:", "mariadb", False),
        ("sqlite:///a.db", "sqlite", False),
        ("sqlite:///:memory:", "sqlite", True),
        ("sqlite://", "sqlite", True),
    ],
)
def test_a_url_knows_its_system_and_whether_it_has_a_file(text, backend, in_memory):
    url = parse_url(text)
    assert (url.backend, url.in_memory) == (backend, in_memory)


PLACE = Location("config/production.yaml", 3, 1)


def test_the_password_of_a_url_in_a_file_has_its_place_and_whether_it_was_written_there():
    text = "postgresql://u:hunter@h/d"
    for variables in ((), ("DATABASE_URL",)):
        password = database_url(Scalar(text, PLACE, variables=variables)).password
        assert (password.read(), password.location, password.written) == ("hunter", PLACE, not variables)
    given = database_url(text).password
    assert (given.read(), given.location, given.written) == ("hunter", None, False)
    assert database_url(Scalar("postgresql://u@h/d", PLACE)).password is None


def test_parts_that_are_known_already_are_taken_as_they_are():
    url = parse_url("postgresql://u:hunter@h/d")
    for read in (database_url, parsed_url):
        assert read(url) is url
        assert read(Scalar(url, PLACE)) is url


def test_what_is_no_url_has_no_parts_and_its_own_field_says_so():
    assert parsed_url("postgresql://h/d") == DatabaseURL("postgresql", host="h", database="d")
    assert parsed_url(Scalar("postgresql://h/d", PLACE)) == parsed_url("postgresql://h/d")
    assert parsed_url("hunter") is parsed_url(5) is parsed_url(None) is None
    with pytest.raises(PydanticCustomError, match="not a database URL: it does not begin with a scheme"):
        database_url("hunter")
    with pytest.raises(PydanticCustomError, match=r"^unsupported database 'mongodb'") as caught:
        database_url("mongodb://h/d")
    (finding,) = caught.value.context["findings"]
    assert finding.slug == "unknown-dialect"


def test_parameters_are_texts_numbers_and_lists_of_them():
    secret = Secret("text", "hunter")
    given = {"a": "x", "b": 5, "c": ["x", 6], "d": ("y",), "sslpassword": secret}
    wanted = {"a": ("x",), "b": ("5",), "c": ("x", "6"), "d": ("y",), "sslpassword": (secret,)}
    assert query(given) == wanted


@pytest.mark.parametrize("value", [True, 1.5, ["x", False], {"x": 1}, [["x"]]])
def test_what_is_no_text_is_refused_as_a_parameter(value):
    with pytest.raises(PydanticCustomError, match="'a' must be text or a number, or a list of them") as caught:
        query({"a": value})
    (finding,) = caught.value.context["findings"]
    assert (finding.slug, finding.at) == ("wrong-type", ("a",))


@pytest.mark.parametrize("name", ["plugin", "password", "passwd", "user", "username", "dbname", "database", "db"])
def test_what_has_a_key_of_its_own_is_refused_as_a_parameter(name):
    with pytest.raises(PydanticCustomError, match=f"^query has the parameter '{name}': ") as caught:
        query({name: "x"})
    (finding,) = caught.value.context["findings"]
    assert (finding.slug, finding.at) == ("given-twice", (name,))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg"])
@pytest.mark.parametrize(
    ("written", "ports"),
    [
        ("host=a&host=b&port=1&port=2", [1, 2]),
        ("host=a,b&port=1,2", [1, 2]),
        ("host=a:1&host=b:2", [1, 2]),
        ("host=a:1,b:2&port=3", [1, 2]),
        ("host=a:1&host=b&port=3", [1, 3]),
        ("host=a,b&port=3", [3, 3]),
        ("host=a&host=b&port=3", [3, 3]),
        ("host=a&host=b", [5432, 5432]),
        ("host=/tmp,b:2", [5432, 2]),
    ],
)
def test_every_driver_of_postgresql_knows_the_hosts_and_ports_of_a_url(driver, written, ports):
    pytest.importorskip(driver)
    with Registry.from_profile(Profile(name="hosts", url=f"postgresql+{driver}://u@/d?{written}")) as registry:
        settings = registry.profile.database("default")
    engine = create.build(settings, "hosts", asynchronous=driver == "asyncpg")
    keywords = engine.dialect.create_connect_args(engine.url)[1]
    names = ["/tmp" if "/tmp" in written else "a", "b"]
    wanted = (names, ports) if driver == "asyncpg" else (",".join(names), ",".join(map(str, ports)))
    assert (keywords["host"], keywords["port"]) == wanted


@pytest.mark.parametrize("url", ["postgresql://u@${HOST}/d", "postgresql://u@h/${NAME}", "sqlite:///${FILE}"])
def test_a_reference_that_is_left_is_named(url: str) -> None:
    with pytest.raises(InvalidURL, match=r"its `\$\{[A-Z]+\}` is a reference that was not expanded") as caught:
        parse_url(url)
    assert caught.value.slug == "bad-reference"
