#!/bin/sh
# Every figure that needs an NVIDIA GPU, in one command under nine minutes; `--help` tells the options.
# Needs the environment of `python3 scripts/install.py dev`, made on a machine with the GPU and nvcc.
set -eu
cd "$(dirname "$0")/../.."
exec "${SPADE_VENV:-.venv}/bin/python" -m benchmarks.gpu "$@"
