#!/bin/sh
# Install into /opt/moodline what a locked requirements file names, or Moodline itself, from a build stage mounted at /build.
set -eu

case $1 in
moodline) set -- --no-deps /build/moodline/*.whl ;;
*) set -- --require-hashes --requirement "/build/requirements/$1.lock" ;;
esac
exec /build/opt/tools/bin/python -m pip --python /opt/moodline/bin/python --disable-pip-version-check \
    install --quiet --no-cache-dir --no-index --find-links /build/wheels "$@"
