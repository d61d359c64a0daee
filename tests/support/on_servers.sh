#!/bin/sh
# Run the tests of login, TLS, timeouts, retry and failover on servers of another Debian: by default the newest there are.
#
#   on_servers.sh [SUITE] [NAME…] [-- ARGUMENT…]    of fetch_servers.sh, and for pytest
#
# Where MySQL is among them, it takes the place of MariaDB.
set -eu
cd "$(dirname "$0")/../.."

suite=sid
if [ $# -gt 0 ] && [ "$1" != -- ]; then
    suite=$1
    shift
fi
names=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    names="$names $1"
    shift
done
[ $# = 0 ] || shift

# shellcheck disable=SC2086 # words, on purpose
found=$(tests/support/fetch_servers.sh "$suite" ${names:-postgresql mysql pgbouncer})
for each in $found; do
    export "DBCONFIG_TEST_$each"
    echo "DBCONFIG_TEST_$each"
done

exec .venv/bin/python -m pytest -q -rs \
    tests/databases/test_tls.py tests/databases/test_mysql.py tests/databases/test_postgresql.py \
    tests/databases/test_failover.py tests/sessions/test_units.py "$@"
