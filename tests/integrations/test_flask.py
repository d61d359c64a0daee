"""Flask: the extension, its commands, several applications in one process."""

import shutil
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Field, MetaData, SQLModel, select

pytest.importorskip("flask")

from flask import Flask, stream_with_context

from dbconfig import Profile, Registry
from dbconfig.integrations.flask import DBConfig, commands
from tests.integrations.conftest import Project
from tests.support.ports import free_port

EXAMPLE = Path(__file__).parents[2] / "examples/flask_app"


class Base(SQLModel):
    metadata = MetaData()


class Note(Base, table=True):
    __tablename__ = "flask_note"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40)


db = DBConfig()


def create_app(registry):
    app = Flask("notes")
    db.init_app(app, registry)

    @app.post("/<name>")
    def add(name):
        db.session.add(Note(name=name))
        db.session.commit()
        return "", 201

    @app.get("/")
    def names():
        assert db.session is db.session
        return list(db.session.exec(select(Note.name)))

    @app.post("/forgotten")
    def forgets():
        db.session.add(Note(name="forgotten"))
        db.session.flush()
        return ""

    @app.post("/commit-fails")
    def commit_fails():
        db.session.connection().execute(text("INSERT INTO flask_child VALUES (4711)"))
        db.session.commit()
        return ""

    return app


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request, tmp_path):
    url = f"sqlite:///{tmp_path}/app.db" if request.param == "sqlite" else request.getfixturevalue("postgresql").url()
    with Registry.from_profile(Profile(name="tests", url=url, pool_size=2, max_overflow=0)) as made:
        Base.metadata.create_all(made.engine())
        yield made


def test_a_session_for_each_request_that_commits_when_it_is_told_to(registry):
    client = create_app(registry).test_client()
    assert client.post("/a").status_code == 201
    assert client.post("/forgotten").status_code == 200
    assert client.get("/").json == ["a"]
    assert registry.engine().pool.checkedout() == 0


def test_a_commit_that_fails_is_a_500(registry):
    with registry.engine().begin() as connection:
        deferred = "REFERENCES flask_note(id) DEFERRABLE INITIALLY DEFERRED"
        connection.execute(text(f"CREATE TABLE flask_child (note_id INTEGER {deferred})"))
    client = create_app(registry).test_client()
    assert client.post("/commit-fails").status_code == 500
    assert registry.engine().pool.checkedout() == 0
    with registry.engine().begin() as connection:
        connection.execute(text("DROP TABLE flask_child"))


def test_two_applications_with_different_profiles_share_nothing(tmp_path, postgresql):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/one.yaml").write_text("url: sqlite:///data/one.db\n")
    (tmp_path / "config/two.yaml").write_text(f"url: {postgresql.url()}\n")
    clients = {}
    for profile in ("one", "two"):
        app = Flask(profile)
        app.config.update(DBCONFIG_PATH=tmp_path / "config", DBCONFIG_PROFILE=profile)
        DBConfig(app)

        @app.post("/")
        def add():
            db.session.add(Note(name=db.registry.profile.name))
            db.session.commit()
            return ""

        @app.get("/")
        def names():
            return [db.session.get_bind().dialect.name, *db.session.exec(select(Note.name))]

        with app.app_context():
            Base.metadata.create_all(db.registry.engine())
        clients[profile] = app.test_client()
    threads = [threading.Thread(target=clients[name].post, args=("/",)) for name in ("one", "two") * 5]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert clients["one"].get("/").json == ["sqlite"] + ["one"] * 5
    assert clients["two"].get("/").json == ["postgresql"] + ["two"] * 5
    for client in clients.values():
        client.application.extensions["dbconfig"].dispose()


def test_the_extension_is_given_once_and_asked_for_where_it_is():
    app = Flask("none")
    with app.app_context(), pytest.raises(RuntimeError, match="init_app"):
        _ = db.session
    db.init_app(app)
    with pytest.raises(RuntimeError, match="twice"):
        db.init_app(app)


@pytest.fixture
def example(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("data", "__pycache__"))
    return Project(tmp_path / "example")


def test_the_example_and_the_commands(example):
    def flask(*arguments):
        done = example.run("flask", "--app", "shop", "dbconfig", *arguments)
        return done.stdout + done.stderr

    assert "default: sqlite:///data/app.db" in flask("show")
    assert "created: product" in flask("create-tables")
    assert "created: none (all exist)" in flask("create-tables")
    assert "default: ok" in flask("ping")
    assert "no database 'analytics'" in flask("ping", "--database", "analytics")
    assert "dropped: product" in flask("drop-tables", "--yes")
    (example.path / "config/development.yaml").write_text("url: sqlite:///data/app.db\nprotected: true\n")
    assert "is protected" in flask("drop-tables", "--yes")
    done = example.pytest()
    assert "2 passed" in done.stdout, done.stdout


# The generator of a response, which Flask runs after it has torn the request's context down.


@pytest.fixture
def streaming(tmp_path):
    settings = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 1}
    with Registry.from_profile(Profile(name="tests", url=f"sqlite:///{tmp_path}/app.db", **settings)) as registry:
        Base.metadata.create_all(registry.engine())
        app = Flask("streams")
        db.init_app(app, registry)
        yield app, registry


def ones(session, times=3):
    return (str(session.scalar(text("SELECT 1"))) for _ in range(times))


@pytest.mark.parametrize("taken", ["in the view", "in the generator"])
def test_a_generator_with_its_context_reads_with_the_requests_session(streaming, taken):
    app, registry = streaming

    @app.get("/")
    def index():
        session = db.session if taken == "in the view" else None
        return stream_with_context(each for each in ones(session or db.session))

    client = app.test_client()
    for _ in range(3):
        assert client.get("/").text == "111"
    assert registry.stats().used == 0


def test_a_stream_that_is_given_up_gives_its_connection_back(streaming):
    app, registry = streaming

    @app.get("/")
    def index():
        return stream_with_context(ones(db.session, 1000))

    for begun in (True, False, True):
        answer = app.test_client().get("/", buffered=False)
        if begun:
            next(answer.iter_encoded())
            assert registry.stats().used == 1
        answer.close()
        assert registry.stats().used == 0


def test_a_generator_without_the_context_is_refused_by_name(streaming):
    app, registry = streaming

    @app.get("/items/<int:number>")
    def index(number):
        return ones(db.session)

    for _ in range(3):
        with pytest.raises(InvalidRequestError, match=r"GET /items/<int:number> has ended.*stream_with_context"):
            app.test_client().get("/items/1")
    assert registry.stats().used == 0


@pytest.mark.parametrize(
    "write",
    [
        lambda session: session.add(Note(name="lost")),
        lambda session: session.add(Note(name="lost")) or session.flush(),
        lambda session: session.execute(text("INSERT INTO flask_note (name) VALUES ('lost')")),
    ],
)
def test_what_the_view_has_not_committed_is_not_lost_in_silence(streaming, write):
    app, registry = streaming

    @app.post("/")
    def index():
        write(db.session)

        def body():
            db.session.commit()
            yield "committed"

        return stream_with_context(body())

    with pytest.raises(InvalidRequestError, match=r"POST / was rolled back.*commit before the view returns"):
        app.test_client().post("/")
    assert registry.stats().used == 0


def test_teardown_functions_that_come_later_open_nothing(streaming):
    registry = streaming[1]
    app, refused = Flask("teardown"), []

    @app.teardown_appcontext
    def late(error):
        try:
            db.session.connection()
        except InvalidRequestError as error:
            refused.append(str(error))

    db.init_app(app, registry)

    @app.get("/")
    def index():
        return str(db.session.scalar(text("SELECT 1")))

    assert app.test_client().get("/").text == "1"
    assert len(refused) == 1
    assert registry.stats().used == 0


@pytest.mark.parametrize("command", ["create-tables", "drop-tables"])
def test_a_command_without_models_says_what_to_import(project, command):
    project.write(
        config__development_yaml="url: sqlite:///app.db\n",
        app_py="from flask import Flask\nfrom dbconfig.integrations.flask import DBConfig\n"
        "app = Flask('shop')\nDBConfig().init_app(app)\n",
    )
    yes = ["--yes"] if command == "drop-tables" else []
    done = project.run("flask", "--app", "app", "dbconfig", command, *yes)
    assert done.returncode == 1
    assert "no tables are defined: import" in done.stderr


def test_a_command_knows_the_tables_that_are_bound(tmp_path):
    """None of them is in SQLModel.metadata."""
    more = {"facts": {"url": f"sqlite:///{tmp_path}/facts.db"}}
    profile = Profile(name="tests", url=f"sqlite:///{tmp_path}/app.db", databases=more)
    app = Flask("bound")
    with Registry.from_profile(profile) as registry:
        registry.bind(facts=Base.metadata)
        db.init_app(app, registry)
        run = app.test_cli_runner().invoke
        created = run(commands, ["create-tables"]).output  # other tests' models may be known too
        assert created.startswith("created: ")
        assert "flask_note" in created
        assert run(commands, ["create-tables"]).output == "created: none (all exist)\n"


@pytest.mark.filterwarnings("error:Previous unbuffered result")
@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql"])
@pytest.mark.parametrize("in_context", [stream_with_context, iter])
def test_what_the_view_has_begun_to_read_is_streamed_to_its_end(request, tmp_path, driver, in_context):
    system = driver.partition("+")[0]
    if system == "sqlite":
        url = f"{driver}:///{tmp_path}/app.db"
    else:
        url = request.getfixturevalue({"mysql": "mariadb"}.get(system, system)).url(driver)
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i FROM n"
    app, own = Flask("streams"), DBConfig()
    with Registry.from_profile(Profile(name="tests", url=url, pool_size=1, max_overflow=0)) as registry:
        own.init_app(app, registry)

        @app.get("/")
        def index():
            result = own.session.execute(text(many).execution_options(stream_results=True, max_row_buffer=10))

            def body():
                with result:
                    yield from (f"{number}\n" for number in result.scalars())

            return app.response_class(in_context(body()))

        client = app.test_client()
        for _ in range(3):
            assert client.get("/").text.split() == [str(number) for number in range(1, 901)]
            assert registry.stats().used == 0
        with client.get("/", buffered=False):  # given up after the first row
            assert registry.stats().used == 1
        assert registry.stats().used == 0


@pytest.mark.parametrize("driver", ["sqlite+aiosqlite", "postgresql+asyncpg", "mysql+asyncmy"])
def test_the_commands_work_with_an_asynchronous_driver_alone(request, tmp_path, driver):
    system = driver.partition("+")[0]
    if system == "sqlite":
        url = f"{driver}:///{tmp_path}/app.db"
    else:
        url = request.getfixturevalue({"mysql": "mariadb"}.get(system, system)).url(driver)
    app = Flask("asynchronous")
    with Registry.from_profile(Profile(name="tests", url=url, databases={"facts": {"url": url}})) as registry:
        registry.bind(facts=Base.metadata)
        db.init_app(app, registry)
        run = app.test_cli_runner().invoke
        outputs = [
            run(commands, [command, "--database", "facts", *more]).output
            for command, *more in (["ping"], ["create-tables"], ["drop-tables", "--yes"], ["drop-tables", "--yes"])
        ]
    assert outputs == ["facts: ok\n", "created: flask_note\n", "dropped: flask_note\n", "dropped: none\n"]


@pytest.mark.parametrize("driver", ["postgresql+psycopg2", "postgresql+asyncpg", "mysql+pymysql"])
@pytest.mark.parametrize("command", [["ping"], ["create-tables"], ["drop-tables", "--yes"]])
def test_a_command_says_in_words_what_it_cannot_do(driver, command):
    app = Flask("refused")
    profile = Profile(name="tests", url=f"{driver}://user:planted-secret@127.0.0.1:{free_port()}/app")
    with Registry.from_profile(profile) as registry:
        db.init_app(app, registry)
        done = app.test_cli_runner().invoke(commands, command)
    assert done.exit_code == 1
    assert "dbconfig[refused]: nothing listens on 127.0.0.1" in done.output
    assert "planted-secret" not in done.output


@pytest.mark.parametrize("command", [["show"], ["ping"], ["create-tables"]])
def test_a_command_shows_a_problem_of_the_configuration_without_a_traceback(project, command):
    project.write(
        config__development_yaml="url: sqlite:///app.db\npool_sise: 1\n",
        app_py="from flask import Flask\nfrom dbconfig.integrations.flask import DBConfig\n"
        "app = Flask('shop')\nDBConfig().init_app(app)\n",
    )
    done = project.run("flask", "--app", "app", "dbconfig", *command)
    assert done.returncode == 1
    assert "error[unknown-key]" in done.stderr
    assert "Traceback" not in done.stderr
