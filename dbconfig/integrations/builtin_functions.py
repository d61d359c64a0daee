"""Functions and words before a parenthesis that leave no state in a session or in its transaction.

From the manuals of PostgreSQL 18 ("Functions and Operators"), MySQL 9 and MariaDB 12 ("Built-In Functions"), and SQLite
("Built-In Scalar SQL Functions"). Not here, on purpose: `set_config`, `nextval` and `currval`, `last_insert_id`,
`found_rows`, locks (`pg_advisory_lock`, `get_lock`), large objects, `pg_notify`, `setseed`, and what the application or
an extension defines. PostgreSQL looks its own functions up first, and MySQL keeps the names of its own to itself.
"""

from __future__ import annotations

from typing import Final

_SYNTAX: Final = """
    all and any array as between by case cast check collate cross cube distinct else except exists extract filter
    from group grouping having in inner intersect is join lateral left like not on or order over partition right
    rollup rows select sets some then union unnest using values when where with within
"""

_TYPES: Final = """
    binary bit char character date datetime decimal dec double float interval nchar numeric nvarchar time timestamp
    timestamptz varbinary varchar varying vector
"""

_AGGREGATES: Final = """
    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp cume_dist
    dense_rank every first_value group_concat json_agg json_array_agg json_arrayagg json_group_array
    json_group_object json_object_agg json_objectagg jsonb_agg jsonb_object_agg lag last_value lead max median min
    mode nth_value ntile percent_rank percentile_cont percentile_disc range_agg rank regr_count regr_slope
    row_number std stddev stddev_pop stddev_samp string_agg sum total var_pop var_samp variance
"""

_NUMBERS: Final = """
    abs acos asin atan atan2 cbrt ceil ceiling conv cos cot crc32 degrees div exp factorial floor gcd greatest lcm
    least ln log log10 log2 mod pi pow power radians rand random round sign sin sqrt tan trunc truncate width_bucket
"""

_TEXTS: Final = """
    ascii bin_to_uuid bit_length btrim char_length character_length chr concat concat_ws convert convert_from
    convert_to decode elt encode field find_in_set format from_base64 gen_random_uuid glob hex initcap instr length
    locate lower lpad ltrim md5 normalize octet_length ord overlay position printf quote quote_ident quote_literal
    quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse rpad rtrim sha1 sha2 sha224
    sha256 sha384 sha512 soundex space split_part starts_with strcmp string_to_array string_to_table strpos substr
    substring substring_index to_ascii to_base64 to_hex translate trim typeof unhex unicode upper uuid uuid_to_bin
    uuidv4 uuidv7
"""

_TIMES: Final = """
    adddate addtime age clock_timestamp convert_tz curdate current_date current_time current_timestamp curtime
    date_add date_bin date_format date_part date_sub date_trunc datediff day dayname dayofmonth dayofweek dayofyear
    from_days from_unixtime hour isfinite julianday justify_days justify_hours justify_interval last_day localtime
    localtimestamp make_date make_interval make_time make_timestamp make_timestamptz makedate maketime microsecond
    minute month monthname now overlaps period_add period_diff quarter sec_to_time second statement_timestamp
    str_to_date strftime subdate subtime sysdate time_format time_to_sec timediff timeofday timestampadd
    timestampdiff timezone to_char to_date to_days to_number to_timestamp transaction_timestamp unix_timestamp
    unixepoch utc_date utc_time utc_timestamp week weekday weekofyear year yearweek
"""

_DOCUMENTS: Final = """
    array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions
    array_prepend array_remove array_replace array_to_json array_to_string array_upper cardinality generate_series
    generate_subscripts int4range int8range isempty json json_array json_array_elements json_array_elements_text
    json_array_length json_build_array json_build_object json_contains json_contains_path json_depth json_each
    json_each_text json_exists json_extract json_extract_path json_extract_path_text json_insert json_keys
    json_length json_merge_patch json_merge_preserve json_object json_object_keys json_overlaps json_patch
    json_pretty json_query json_quote json_remove json_replace json_scalar json_search json_serialize json_set
    json_strip_nulls json_to_record json_to_recordset json_tree json_type json_typeof json_unquote json_valid
    json_value jsonb jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert
    jsonb_object jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array
    jsonb_path_query_first jsonb_populate_record jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_to_record
    jsonb_to_recordset jsonb_typeof lower_inc lower_inf numrange range_merge row row_to_json to_json to_jsonb
    tsrange tstzrange upper_inc upper_inf
"""

_SEARCH: Final = """
    against match numnode phraseto_tsquery plainto_tsquery setweight to_tsquery to_tsvector ts_headline ts_rank
    ts_rank_cd websearch_to_tsquery
"""

_OTHERS: Final = """
    coalesce current_database current_schema current_setting current_user database if ifnull iif isnull nullif
    num_nonnulls num_nulls pg_column_size pg_sleep pg_typeof schema session_user sleep sqlite_version user version
"""

HARMLESS: Final[frozenset[str]] = frozenset(
    " ".join((_SYNTAX, _TYPES, _AGGREGATES, _NUMBERS, _TEXTS, _TIMES, _DOCUMENTS, _SEARCH, _OTHERS)).split()
)
