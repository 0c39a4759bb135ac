#!/usr/bin/env bash
# Make a virtual environment whose pip is the pinned one: virtual-environment.sh PYTHON DIRECTORY
# An environment that is there already is kept; only its pip is brought to that version.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1 directory=$2
if [ -x "$directory/bin/python" ]; then python=$directory/bin/python; fi

command -v "$python" >/dev/null || { echo "There is no $python. Name a Python from 3.11 to 3.14: make PYTHON=python3.12 …" >&2; exit 1; }
# Works on every Python, also on those that are refused.
"$python" -c '
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.exit("Moodline needs Python 3.11 to 3.14, and %s is %d.%d. Name another one: make PYTHON=python3.12 VENV=.venv-3.12 ..."
             % ((sys.argv[1],) + tuple(sys.version_info[:2])))
' "$python"

if [ ! -x "$directory/bin/python" ] && ! "$python" -m venv "$directory"; then
    rm -rf "$directory"
    echo "$python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2
    exit 1
fi
# An old pip does not run on a newer Python, which it says only when it is to do something; the interpreter brings one that does.
if ! "$directory/bin/python" -m pip list >/dev/null 2>&1; then "$directory/bin/python" -m ensurepip --upgrade >/dev/null; fi
"$directory/bin/python" -m pip install --quiet --require-hashes -r requirements-installer.lock
