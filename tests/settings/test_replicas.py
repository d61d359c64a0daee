"""Replicas in a profile: what they inherit, what they override, and how they are switched off."""

from pathlib import Path

import pytest

from dbconfig import ConfigError, Profile, load

PRIMARY = "url: postgresql://app:${PW}@db1:5433/shop?sslmode=require&target_session_attrs=read-write\n"


def profile(folder: Path, text: str, **variables: str) -> Profile:
    (folder / "production.yaml").write_text(text)
    return load("production", path=folder, environ={"PW": "p@ss", **variables})


def addresses(loaded: Profile, database: str = "default") -> list[str]:
    return [str(each.address) for each in loaded.databases[database].replicas]


def problems(folder: Path, text: str, **variables: str) -> list[tuple[str, str, int | None]]:
    with pytest.raises(ConfigError) as raised:
        profile(folder, text, **variables)
    return [(each.slug, each.key, each.location.line if each.location else None) for each in raised.value.problems]


def test_a_replica_inherits_the_whole_of_its_primary_and_overrides_what_differs(tmp_path: Path) -> None:
    text = PRIMARY + (
        "pool_size: 20\nstatement_timeout: 2s\n"
        "replicas:\n"
        "  - host: db2\n"
        "  - {host: db3, weight: 3, pool_size: 7, statement_timeout: 30s}\n"
        "  - url: postgresql://db4\n"
        "  - url: postgresql://reader:other@db5:6000/copy?sslmode=disable\n"
    )
    loaded = profile(tmp_path, text)
    assert addresses(loaded) == [
        "postgresql://app:***@db2:5433/shop?sslmode=require",
        "postgresql://app:***@db3:5433/shop?sslmode=require",
        "postgresql://app:***@db4/shop",
        "postgresql://reader:***@db5:6000/copy?sslmode=disable",
    ]
    replicas = loaded.databases["default"].replicas
    assert [each.weight for each in replicas] == [1, 3, 1, 1]
    assert [each.pool_size for each in replicas] == [20, 7, 20, 20]
    assert [each.statement_timeout for each in replicas] == [2.0, 30.0, 2.0, 2.0]
    assert replicas[0].read_password() == "p@ss"
    assert replicas[3].read_password() == "other"
    assert str(replicas[1].origin("pool_size")).endswith("production.yaml:6:28")
    assert str(replicas[0].origin("pool_size")).endswith("production.yaml:2:1")


def test_a_primary_in_parts_gives_its_parts(tmp_path: Path) -> None:
    text = (
        "drivername: mysql\nhost: db1\nusername: app\npassword: {env: PW}\ndatabase: shop\n"
        "replicas: [{host: db2}, {url: 'mysql://db3'}]\n"
    )
    loaded = profile(tmp_path, text)
    assert addresses(loaded) == ["mysql://app:***@db2/shop", "mysql://app:***@db3/shop"]
    assert [each.read_password() for each in loaded.databases["default"].replicas] == ["p@ss", "p@ss"]


def test_a_replica_of_a_named_database_inherits_from_that(tmp_path: Path) -> None:
    text = PRIMARY + "replicas: [{host: db2}]\ndatabases:\n  facts: {url: mysql://r@h1/x, replicas: [{host: h2}]}\n"
    loaded = profile(tmp_path, text)
    assert addresses(loaded, "facts") == ["mysql://r@h2/x"]
    text = PRIMARY + "replicas: [{host: db2}]\ndatabases:\n  facts: {url: postgresql://r@h1/x}\n"
    assert addresses(profile(tmp_path, text), "facts") == []  # another database has other replicas, or none


@pytest.mark.parametrize("word", ["off", "false", "no", "OFF"])
def test_one_variable_switches_all_replicas_off(tmp_path: Path, word: str) -> None:
    text = PRIMARY + "replicas: [{host: db2}]\ndatabases:\n  facts: {url: mysql://r@h1/x, replicas: [{host: h2}]}\n"
    loaded = profile(tmp_path, text, DBCONFIG_REPLICAS=word)
    assert addresses(loaded) == addresses(loaded, "facts") == []
    assert addresses(profile(tmp_path, text, DBCONFIG_DATABASES__FACTS__REPLICAS=word), "facts") == []
    only_named = "databases:\n  facts: {url: mysql://r@h1/x, replicas: [{host: h2}]}\n"
    assert list(profile(tmp_path, only_named, DBCONFIG_REPLICAS=word).databases) == ["facts"]


def test_what_is_wrong_with_a_replica_is_told_at_its_line(tmp_path: Path) -> None:
    text = PRIMARY + "replicas:\n  - hots: db2\n  - weight: -1\n"
    assert problems(tmp_path, text) == [
        ("unknown-key", "replicas.0.hots", 3),
        ("out-of-range", "replicas.1.weight", 4),
    ]
    for value in ("3", "[db2]", "{host: db2}"):
        assert problems(tmp_path, PRIMARY + f"replicas: {value}\n") == [("wrong-type", "replicas", 2)]
    assert problems(tmp_path, PRIMARY + "replicas: [{host: db2}]\n", DBCONFIG_REPLICAS="on")[0][:2] == (
        "wrong-type",
        "replicas",
    )


def test_what_is_said_of_a_database_is_refused_in_a_replica(tmp_path: Path) -> None:
    text = PRIMARY + "replicas:\n  - host: db2\n    protected: true\n    replicas: []\n"
    assert problems(tmp_path, text) == [
        ("not-applicable", "replicas.0.protected", 4),
        ("not-applicable", "replicas.0.replicas", 5),
    ]


def test_the_problems_of_all_replicas_are_told_together(tmp_path: Path) -> None:
    text = PRIMARY + (
        "replicas:\n"
        "  - {host: db2, protected: true, weight: -1}\n"
        "  - {hots: db3}\n"
        "  - {host: db4, weight: x, pool_size: -4}\n"
        "  - {host: db5, connect_args: {user: a}, replicas: []}\n"
        "pool_timeout: -3\n"
    )
    expected = [
        ("not-applicable", "replicas.0.protected", 3),
        ("out-of-range", "replicas.0.weight", 3),
        ("unknown-key", "replicas.1.hots", 4),
        ("wrong-type", "replicas.2.weight", 5),
        ("out-of-range", "replicas.2.pool_size", 5),
        ("given-twice", "replicas.3.connect_args.user", 6),
        ("not-applicable", "replicas.3.replicas", 6),
        ("out-of-range", "pool_timeout", 7),
    ]
    assert problems(tmp_path, text) == expected
    named = "databases:\n  facts:\n" + "".join(f"    {line}\n" for line in text.splitlines())
    assert problems(tmp_path, named) == [(slug, f"databases.facts.{key}", line + 2) for slug, key, line in expected]


def test_what_is_wrong_with_the_primary_is_told_once_and_not_of_each_replica(tmp_path: Path) -> None:
    text = PRIMARY + "pool_size: -1\npool_recycle: 0\nreplicas: [{host: db2}, {host: db3, pool_recycle: 0}]\n"
    assert problems(tmp_path, text) == [
        ("out-of-range", "pool_size", 2),
        ("out-of-range", "pool_recycle", 3),
        ("out-of-range", "replicas.1.pool_recycle", 4),
    ]


def test_the_other_key_of_a_disagreement_is_shown_in_the_replica(tmp_path: Path) -> None:
    text = PRIMARY + "pool_size: 5\nreplicas: [{host: db2, poolclass: NullPool}]\n"
    with pytest.raises(ConfigError, match="`pool_size` has no effect with") as raised:
        profile(tmp_path, text)
    (problem,) = raised.value.problems
    assert [(str(place).partition(":")[2], words) for place, words in problem.also] == [("3:24", "because of this")]


def test_replicas_of_a_lower_layer_need_not_fit_a_database_that_has_none(tmp_path: Path) -> None:
    for replica in ("host: db2", "weight: 2"):
        (tmp_path / "default.yaml").write_text(f"replicas: [{{{replica}}}]\n")
        assert profile(tmp_path, "url: sqlite:///a.db\n").databases["default"].replicas == ()


def test_another_system_is_no_replica_and_sqlite_has_none(tmp_path: Path) -> None:
    assert problems(tmp_path, PRIMARY + "replicas:\n  - url: mysql://db2\n") == [("invalid-value", "replicas.0.url", 3)]
    assert problems(tmp_path, "url: sqlite:///a.db\nreplicas: [{database: b.db}]\n")[0][:2] == (
        "not-applicable",
        "replicas",
    )


def test_no_secret_of_a_replica_is_shown(tmp_path: Path) -> None:
    loaded = profile(tmp_path, PRIMARY + "replicas: [{host: db2}, {password: canary-secret}]\n")
    for text in (repr(loaded), str(loaded.model_dump()), loaded.model_dump_json()):
        assert "canary" not in text
        assert "p@ss" not in text


def test_replicas_can_be_given_in_code() -> None:
    made = Profile(name="code", url="postgresql://a@b/c", replicas=[{"port": 6000, "weight": 2}])
    assert addresses(made) == ["postgresql://a@b:6000/c"]


@pytest.mark.parametrize(
    ("primary", "replica"),
    [
        ("mysql+pymysql://u@/d?unix_socket=/a", "mysql+pymysql://u@db2/d"),
        ("mysql+pymysql://u@%2Fa/d", "mysql+pymysql://u@db2/d"),
        ("postgresql+psycopg2://u@/d?host=/a&port=1", "postgresql+psycopg2://u@db2/d"),
        (
            "postgresql+psycopg2://u@/d?host=one,two&application_name=x",
            "postgresql+psycopg2://u@db2/d?application_name=x",
        ),
    ],
)
def test_a_replica_with_a_host_does_not_read_from_the_socket_of_its_primary(primary: str, replica: str) -> None:
    found = Profile(name="p", url=primary, replicas=[{"host": "db2"}]).databases["default"]
    assert str(found.replicas[0].public_url()) == replica
