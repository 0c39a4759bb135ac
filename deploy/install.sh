#!/bin/sh
# Install into /opt/moodline what a locked requirements file names, or Moodline itself, from a build stage mounted at /build.
set -eu

case $1 in
moodline) set -- --no-deps /build/moodline/*.whl ;;
*) set -- --require-hashes --requirement "/build/requirements/$1.lock" ;;
esac
/build/opt/tools/bin/python -m pip --python /opt/moodline/bin/python --disable-pip-version-check \
    install --quiet --no-cache-dir --no-index --find-links /build/wheels "$@"

# What nothing here uses: packages' own tests, and OpenVINO's plugins for other processors and its readers of formats but ONNX.
cd /opt/moodline/lib/python3.*/site-packages
find . -mindepth 2 -type d -name tests -prune -exec rm -rf {} +
rm -f openvino/libs/libopenvino_intel_[gn]pu_plugin.so openvino/libs/cache.json
find . -path './openvino/libs/libopenvino_*_frontend.so*' ! -name 'libopenvino_onnx_*' -exec rm -f {} +
