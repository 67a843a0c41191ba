#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# TFLite's runtime, which `medyate verify` compares .tflite files with, in a Python of its own:
# tflite-runtime needs NumPy 1 and Python 3.11 or older. Elsewhere its successor is taken, whose
# reference kernels round fully connected layers in another way.
#
#   tflite_runtime.sh PYTHON FOLDER
set -eu
python=$1
folder=$2
test -x "$folder/bin/python" || "$python" -m venv --clear "$folder"
pip="$folder/bin/python -m pip install -q --disable-pip-version-check"
if $pip "tflite-runtime==2.14.0" "numpy<2" 2>/dev/null; then
    exit 0
fi
if $pip "ai-edge-litert>=2.1"; then
    echo "tflite-runtime has no build for this Python; ai-edge-litert stands in" >&2
    exit 0
fi
echo "no TFLite runtime could be installed; 'medyate verify' cannot check .tflite files" >&2
rm -rf "$folder"
