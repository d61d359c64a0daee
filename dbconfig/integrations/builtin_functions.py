"""The words before a parenthesis that leave no state in a session or in its transaction, for each system.

From the manuals: PostgreSQL 18, "Functions and Operators"; MySQL 9 and MariaDB 12, "Built-In Functions"; SQLite,
"Built-In Scalar SQL Functions". Not here, on purpose: `set_config`, `nextval` and `currval`, `last_insert_id`,
`found_rows`, locks (`pg_advisory_lock`, `get_lock`), large objects, `pg_notify`, `setseed`, and what applications and
extensions define. PostgreSQL looks its own functions up first, and so does MySQL without a schema before the name.
"""

from __future__ import annotations

from typing import Final

_SYNTAX: Final = """
    all and any array as between binary bit by case cast char character check collate cross cube date datetime dec
    decimal distinct double else except exists extract filter float from group grouping having in inner intersect
    interval is join lateral left like nchar not numeric nvarchar on or order over partition right rollup rows
    select sets some then time timestamp timestamptz union unnest using values varbinary varchar varying vector when
    where with within
"""

_STANDARD: Final = """
    abs avg ceil ceiling coalesce concat count cume_dist current_date current_time current_timestamp dense_rank exp
    first_value floor lag last_value lead length ln lower max min mod nth_value ntile nullif percent_rank power rank
    replace round row_number sign sqrt substr substring sum trim upper
"""

_POSTGRESQL: Final = """
    acos age any_value array_agg array_append array_cat array_dims array_fill array_length array_lower array_ndims
    array_position array_positions array_prepend array_remove array_replace array_to_json array_to_string
    array_upper ascii asin atan atan2 bit_and bit_length bit_or bit_xor bool_and bool_or btrim cardinality cbrt
    char_length character_length chr clock_timestamp concat_ws convert convert_from convert_to corr cos cot
    covar_pop covar_samp current_database current_schema current_setting current_user date_bin date_part date_trunc
    decode degrees div encode every factorial format gcd gen_random_uuid generate_series generate_subscripts
    greatest initcap int4range int8range isempty isfinite json json_agg json_array json_array_elements
    json_array_elements_text json_array_length json_arrayagg json_build_array json_build_object json_each
    json_each_text json_exists json_extract_path json_extract_path_text json_object json_object_agg json_object_keys
    json_objectagg json_query json_scalar json_serialize json_strip_nulls json_to_record json_to_recordset
    json_typeof json_value jsonb jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length
    jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text
    jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query
    jsonb_path_query_array jsonb_path_query_first jsonb_populate_record jsonb_pretty jsonb_set jsonb_strip_nulls
    jsonb_to_record jsonb_to_recordset jsonb_typeof justify_days justify_hours justify_interval lcm least localtime
    localtimestamp log log10 lower_inc lower_inf lpad ltrim make_date make_interval make_time make_timestamp
    make_timestamptz md5 mode normalize now num_nonnulls num_nulls numnode numrange octet_length overlaps overlay
    percentile_cont percentile_disc pg_column_size pg_sleep pg_typeof phraseto_tsquery pi plainto_tsquery position
    quote_ident quote_literal quote_nullable radians random range_agg range_merge regexp_count regexp_instr
    regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr
    regr_count regr_slope repeat reverse row row_to_json rpad rtrim session_user setweight sha224 sha256 sha384
    sha512 sin split_part starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array
    string_to_table strpos tan timeofday timezone to_ascii to_char to_date to_hex to_json to_jsonb to_number
    to_timestamp to_tsquery to_tsvector transaction_timestamp translate trunc ts_headline ts_rank ts_rank_cd tsrange
    tstzrange upper_inc upper_inf uuidv4 uuidv7 var_pop var_samp variance version websearch_to_tsquery width_bucket
"""

_MYSQL: Final = """
    acos adddate addtime against any_value ascii asin atan atan2 bin bin_to_uuid bit_and bit_count bit_length bit_or
    bit_xor char_length character_length concat_ws conv convert convert_tz cos cot crc32 curdate current_user
    curtime database date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear degrees elt
    field find_in_set format from_base64 from_days from_unixtime greatest group_concat hex hour if ifnull instr
    isnull json_array json_arrayagg json_contains json_contains_path json_depth json_extract json_insert json_keys
    json_length json_merge_patch json_merge_preserve json_object json_objectagg json_overlaps json_pretty json_quote
    json_remove json_replace json_search json_set json_table json_type json_unquote json_valid json_value last_day
    lcase least localtime localtimestamp locate log log10 log2 lpad ltrim makedate maketime match md5 microsecond
    mid minute month monthname now oct octet_length ord period_add period_diff pi position pow quarter quote radians
    rand regexp_instr regexp_like regexp_replace regexp_substr repeat reverse row rpad rtrim schema sec_to_time
    second session_user sha sha1 sha2 sin sleep soundex space std stddev stddev_pop stddev_samp str_to_date strcmp
    subdate substring_index subtime sysdate tan time_format time_to_sec timediff timestampadd timestampdiff
    to_base64 to_days truncate ucase unhex unix_timestamp user utc_date utc_time utc_timestamp uuid uuid_to_bin
    var_pop var_samp variance version week weekday weekofyear year yearweek
"""

_SQLITE: Final = """
    acos asin atan atan2 concat_ws cos degrees format glob group_concat hex ifnull iif instr json json_array
    json_array_length json_each json_extract json_group_array json_group_object json_insert json_object json_patch
    json_quote json_remove json_replace json_set json_tree json_type json_valid julianday log log10 log2 ltrim
    octet_length pi pow printf quote radians random rtrim sin sqlite_version strftime string_agg tan total trunc
    typeof unhex unicode unixepoch
"""

_EVERYWHERE: Final = frozenset((_SYNTAX + _STANDARD).split())
_OWN: Final = {
    "postgresql": _EVERYWHERE.union(_POSTGRESQL.split()),
    "mysql": _EVERYWHERE.union(_MYSQL.split()),
    "sqlite": _EVERYWHERE.union(_SQLITE.split()),
}


def is_harmless(name: str, system: str) -> bool:
    """Return whether a word before a parenthesis leaves no state; `system` is a family of databases."""
    name = name.lower()
    if system == "postgresql":
        name = name.removeprefix("pg_catalog.")  # where no application can create anything
    return name in _OWN.get(system, _EVERYWHERE)
