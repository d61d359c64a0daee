#!/bin/sh
# Install the servers that the tests start for themselves, where that is possible; otherwise say what to install.
#
# The packages' own services on the standard ports are neither wanted nor started: while they are installed, a
# policy-rc.d, Debian's means for that, forbids it. Nothing is done, and no network used, if all is there.
set -eu

have() {
    for program in "$@"; do
        for place in "$(command -v "$program" || true)" /usr/lib/postgresql/*/bin/"$program" /usr/sbin/"$program"; do
            if [ -x "$place" ]; then return 0; fi
        done
    done
    return 1
}

missing() {
    have initdb || echo postgresql
    have mariadbd mysqld && have mariadb-install-db mysql_install_db || echo mariadb-server
    have pgbouncer || echo pgbouncer
    have openssl || echo openssl
}

packages=$(missing | tr '\n' ' ')
if [ -z "$packages" ]; then exit 0; fi

if [ "$(id -u)" = 0 ]; then
    root=
elif have sudo && sudo -n true 2>/dev/null; then
    root="sudo -n"
else
    root=none
fi

if [ "$root" != none ] && have apt-get; then
    echo "Installing $packages"
    log=$(mktemp)
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        # The signals too: a policy left behind would keep every later service of this machine from starting.
        trap '$root rm -f "$policy"' EXIT
        trap 'exit 130' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
        $root chmod 755 "$policy"
    fi
    apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -q"
    $apt update >"$log" 2>&1 || true # an old list may do
    # shellcheck disable=SC2086 # words, on purpose
    $apt install -y --no-install-recommends $packages >>"$log" 2>&1 || tail -n 15 "$log"
    rm -f "$log"
fi

packages=$(missing | tr '\n' ' ')
if [ -n "$packages" ]; then
    echo "NOTE: not installed here: ${packages}- the tests that need them are skipped. To run them:"
    echo "      apt-get install --no-install-recommends $packages"
fi
