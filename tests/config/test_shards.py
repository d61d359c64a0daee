"""`shards:` in files: what a shard inherits, where its values come from, and what is wrong with it."""

import pytest

from dbconfig import Profile
from tests.configs import told

ORDERS = """
pool_size: 9
databases:
  orders:
    url: postgresql://app:${PW}@db/orders
    pool_size: 4
    max_overflow: 1
    shards:
      eu: {host: db-eu}
      us:
        host: [us1, 'us2:6000']
        database: orders_us
        pool_size: 2
        replicas: [{host: us3}]
      asia:
        url: postgresql://asia/elsewhere
"""
PW = {"PW": "p@ss"}


def test_a_shard_inherits_the_whole_of_its_database(project):
    profile = project.load(ORDERS, PW)
    assert profile.shards("orders") == ("eu", "us", "asia")
    assert list(profile.databases) == ["default", "orders/eu", "orders/us", "orders/asia"][1:]
    eu, us, asia = (profile.database(profile.shard("orders", name)) for name in profile.shards("orders"))
    assert str(eu.address) == "postgresql://app:***@db-eu/orders"
    assert (eu.read_password(), eu.pool_size, eu.max_overflow) == ("p@ss", 4, 1)
    assert us.address.query["host"] == ("us1,us2",)
    assert (us.address.username, us.address.database, us.pool_size) == ("app", "orders_us", 2)
    assert us.replicas[0].address.host == "us3"
    assert str(asia.address) == "postgresql://app:***@asia/elsewhere"  # a URL has its own host, and no user


def test_each_value_knows_its_line(project):
    profile = project.load(ORDERS, PW)
    eu, us = profile.database("orders/eu"), profile.database("orders/us")
    assert [eu.origin(key).line for key in ("host", "pool_size", "password", "max_overflow")] == [9, 6, 5, 7]
    assert us.origin("pool_size").line == 13


def test_variables_and_upper_layers_reach_into_a_shard(project):
    files = {"default.yaml": ORDERS, "development.yaml": "databases: {orders: {shards: {eu: {pool_size: 7}}}}\n"}
    environ = {
        **PW,
        "DBCONFIG_DATABASES__ORDERS__SHARDS__US__PORT": "99",
        "DBCONFIG_DATABASES__ORDERS__MAX_OVERFLOW": "3",
    }
    profile = project.load(files, environ)
    assert profile.database("orders/eu").pool_size == 7
    assert profile.database("orders/eu").address.host == "db-eu"
    assert profile.database("orders/us").address.query["port"] == ("99,6000",)
    assert {profile.database(f"orders/{name}").max_overflow for name in ("eu", "us", "asia")} == {3}


def test_replicas_of_the_whole_are_not_those_of_a_shard(project):
    text = (
        "url: postgresql://db/d\nreplicas: [{host: r}]\nshards: {eu: {host: e}, us: {host: u, replicas: [{host: x}]}}\n"
    )
    profile = project.load(text)
    assert profile.database("default/eu").replicas == ()
    assert [each.address.host for each in profile.database("default/us").replicas] == ["x"]


def test_the_profiles_own_database_may_be_divided_beside_others(project):
    text = "url: sqlite:///a.db\npool_size: 3\nshards: {a: {}, b: {database: b.db}}\ndatabases: {log: {url: 'sqlite:///l.db'}}\n"
    profile = project.load(text)
    assert {name: each.pool_size for name, each in profile.databases.items()} == {
        "log": 3,
        "default/a": 3,
        "default/b": 3,
    }
    assert profile.database("default/b").path == project.root / "b.db"


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ("shards: [eu]", ("wrong-type", "shards")),
        ("shards: {}", ("wrong-type", "shards")),
        ("shards: {'e u': {}}", ("invalid-value", "shards.e u")),
        ("shards: {eu: 3}", ("wrong-type", "shards.eu")),
        ("shards: {eu: {shards: {x: {}}}}", ("not-applicable", "shards.eu.shards")),
        ("shards: {eu: {pool_sise: 3}}", ("unknown-key", "shards.eu.pool_sise")),
        ("shards: {eu: {url: 'sqlite:///x', host: h}}", ("not-applicable", "shards.eu.host")),
        ("databases: {a/b: {url: 'sqlite://'}}", ("invalid-value", "databases.a/b")),
    ],
)
def test_what_is_wrong_with_shards_is_told_where_it_stands(project, shards, expected):
    error = project.refuse(f"url: sqlite:///a.db\n{shards}\n")
    assert expected in {(slug, key) for slug, _, key in told(error)}
    assert all("development.yaml:2" in place for _, place, _ in told(error))


def test_a_mistake_of_the_database_is_told_once_and_not_for_each_shard(project):
    error = project.refuse("url: sqlite:///a.db\npool_size: -3\npool_sise: 1\nshards: {a: {}, b: {}, c: {}}\n")
    assert sorted(slug for slug, _, _ in told(error)) == ["out-of-range", "unknown-key"]


def test_a_replica_has_no_shards(project):
    error = project.refuse("url: postgresql://db/d\nreplicas: [{host: r, shards: {a: {}}}]\n")
    assert "not-applicable" in {slug for slug, _, _ in told(error)}


def test_a_profile_made_in_code_has_shards_too():
    profile = Profile(name="p", url="postgresql://u:pw@h:1/d", pool_size=7, shards={"eu": {"host": "eu"}, "us": {}})
    assert profile.shards() == ("eu", "us")
    assert [each.pool_size for each in profile.databases.values()] == [7, 7]
    assert str(profile.database("default/eu").address) == "postgresql://u:***@eu:1/d"
