#!/bin/sh
# Every figure that needs an NVIDIA GPU, in one command of at most 570 s; `--help` tells the options.
# Needs a Python with PyTorch for the GPU, Triton, nanobind, click and rich, and CMake and nvcc; no network. Takes the
# virtual environment SPADE_VENV, else .venv, else python3.
set -eu
cd "$(dirname "$0")/../.."
python="${SPADE_VENV:-.venv}/bin/python"
[ -x "$python" ] || python=python3
exec "$python" -m benchmarks.gpu "$@"
