#!/bin/sh
# Create the virtual environment $1 with Python $2, or with the newest on the PATH that fits.
set -eu

target=$1
version=${2:-}

newest() {
    for python in python3.13 python3.12 python3.11 python3; do
        # Running it, not merely finding it: a version manager's stand-in exists but fails.
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
}

if [ -n "$version" ]; then
    python=$("$(dirname "$0")/find_python.sh" "$version")
    wanted="Python $version is needed"
else
    python=$(newest)
    wanted="Python 3.11 or newer is needed; found none of python3.13, python3.12, python3.11, python3"
fi
if [ -z "$python" ]; then
    echo "$wanted." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian ships them apart from Python.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing python3-venv"
        log=$(mktemp)
        apt-get -q update >"$log" 2>&1 || true # an old list may do
        DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3-venv >>"$log" 2>&1 || {
            tail -n 15 "$log" >&2
            exit 1
        }
        rm -f "$log"
    else
        echo "$python cannot make virtual environments: apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "Creating $target with $("$python" --version)"
"$python" -m venv "$target"
