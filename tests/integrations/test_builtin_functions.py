"""Which functions leave no state in a transaction: what the servers themselves say about those that are listed."""

import sqlite3

import pytest
import sqlalchemy

from dbconfig.integrations import builtin_functions
from dbconfig.integrations.builtin_functions import is_harmless

# Of PostgreSQL's grammar, or newer than the oldest server here.
GRAMMAR = {
    *("coalesce", "greatest", "least", "nullif", "current_date", "current_time", "current_timestamp", "localtime"),
    *(
        "localtimestamp",
        "normalize",
        "row",
        "json_array",
        "json_arrayagg",
        "json_exists",
        "json_object",
        "json_objectagg",
    ),
    *("trim", "json_query", "json_scalar", "json_serialize", "json_value", "any_value", "json", "jsonb", "extract"),
    *(
        "regexp_count",
        "regexp_instr",
        "regexp_like",
        "regexp_substr",
        "range_agg",
        "string_to_table",
        "uuidv4",
        "uuidv7",
    ),
}
# Volatile, because each call has another result; none of them leaves anything behind.
DIFFERENT_EACH_TIME = {"clock_timestamp", "timeofday", "gen_random_uuid", "pg_sleep", "random", "uuidv4", "uuidv7"}


def test_postgresql_has_each_of_them_and_calls_it_stable_or_immutable(postgresql):
    query = """SELECT p.proname, string_agg(DISTINCT p.provolatile::text, '') AS how FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'pg_catalog' GROUP BY 1"""
    engine = sqlalchemy.create_engine(postgresql.url("postgresql+psycopg2"))
    with engine.connect() as connection:
        known = {row.proname: row.how for row in connection.execute(sqlalchemy.text(query))}
    engine.dispose()
    listed = set((builtin_functions._STANDARD + builtin_functions._POSTGRESQL).split())
    assert listed - known.keys() - GRAMMAR == set()
    assert {name for name in listed & known.keys() if "v" in known[name]} <= DIFFERENT_EACH_TIME


def test_sqlite_has_each_of_them():
    connection = sqlite3.connect(":memory:")
    known = {row[0] for row in connection.execute("SELECT name FROM pragma_function_list")}
    connection.close()
    assert "strftime" in known
    newer = {"concat", "concat_ws", "octet_length", "string_agg", "unhex"}  # 3.41 to 3.44
    grammar = {"mod", "current_date", "current_time", "current_timestamp", "json_each", "json_tree", "if", "substring"}
    built_to_order = {
        "acos",
        "asin",
        "atan",
        "atan2",
        "ceil",
        "ceiling",
        "cos",
        "degrees",
        "exp",
        "floor",
        "ln",
        "log",
    } | {
        *("log10", "log2", "pi", "pow", "power", "radians", "sin", "sqrt", "tan", "trunc"),
    }
    assert set(builtin_functions._SQLITE.split()) - known - newer - grammar - built_to_order == set()


@pytest.mark.parametrize(
    "name", ["nextval", "setval", "set_config", "pg_notify", "setseed", "lo_create", "pg_advisory_lock"]
)
def test_what_leaves_something_behind_is_not_listed(name):
    assert not is_harmless(name, "postgresql")
    assert not is_harmless(f"pg_catalog.{name}", "postgresql")


@pytest.mark.parametrize("name", ["last_insert_id", "get_lock", "release_lock", "found_rows", "row_count", "nextval"])
def test_what_leaves_something_behind_in_mysql_is_not_listed(name):
    assert not is_harmless(name, "mysql")


def test_names_are_compared_as_the_servers_do():
    assert is_harmless("NOW", "postgresql")
    assert is_harmless("pg_catalog.now", "postgresql")
    assert not is_harmless("pg_catalog.now", "mysql")
    assert not is_harmless("app.now", "postgresql")
    assert is_harmless("count", "duckdb")
    assert not is_harmless("date_trunc", "duckdb")
