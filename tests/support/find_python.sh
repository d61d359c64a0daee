#!/bin/sh
# Print the program of each Python version asked for, `find_python.sh 3.13 3.12`, that there is: on the PATH or of pyenv.
set -eu

works() {
    # Running it, not merely finding it: a version manager's stand-in exists but fails.
    [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$2" ]
}

pyenv=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "${HOME:-/root}/.pyenv")}
for version in "$@"; do
    for python in "python$version" "$pyenv/versions/$version".*/bin/python; do
        if works "$python" "$version"; then
            echo "$python"
            break
        fi
    done
done
