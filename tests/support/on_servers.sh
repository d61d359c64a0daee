#!/bin/sh
# Run the tests of login, TLS, timeouts, retry and failover on servers of another Debian: by default the newest there are.
#
#   on_servers.sh [SUITE] [NAME…] [-- ARGUMENT…]    of fetch_servers.sh, and for pytest
#
# Tests that are named (tests/…) take the place of the usual ones. Where MySQL is among the servers, it takes the place of
# MariaDB.
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

files="tests/databases/test_tls.py tests/databases/test_mysql.py tests/databases/test_postgresql.py
    tests/databases/test_everywhere.py tests/databases/test_failover.py tests/databases/test_primary_among_hosts.py
    tests/databases/test_late_statements.py tests/sessions/test_units.py"
for each in "$@"; do
    case $each in tests/*) files= ;; esac
done
# shellcheck disable=SC2086 # words, on purpose
exec .venv/bin/python -m pytest --numprocesses "${WORKERS:-6}" --dist worksteal -q -rs $files "$@"
