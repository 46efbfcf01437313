"""Triton's own load generator, the binary of the wheel, runs unmodified against the gateway."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from served import blocks, png

from serving.gateway.pair import Pair

FOLDER = Path(sys.prefix, "perf_analyzer")

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="the wheel's binary is for Linux on x86-64"
)


def perf_analyzer(*arguments: str) -> str:
    binary = FOLDER / "bin" / "perf_analyzer"
    assert binary.exists(), f"expected {binary}; run scripts/perf_analyzer"
    environment = os.environ | {"LD_LIBRARY_PATH": str(FOLDER / "nvidia" / "cuda_runtime" / "lib")}
    done = subprocess.run(
        [binary, *arguments, "--request-count", "12"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("spade", ("-i", "grpc")),
        ("spade", ("-i", "grpc", "--streaming")),
        ("spade", ("-i", "http", "-b", "2")),
        ("spade_image", ("-i", "http")),
    ],
)
def test_perf_analyzer_measures_both_models(
    gateway: Pair, tmp_path: Path, model: str, options: tuple[str, ...]
) -> None:
    labels = blocks(1)[0]
    file = png(labels)
    tensors = {
        "spade": {"labels": {"content": labels.ravel().tolist(), "shape": list(labels.shape)}},
        "spade_image": {"label_map": {"content": list(file), "shape": [len(file)]}},
    }
    (tmp_path / "input.json").write_text(json.dumps({"data": [tensors[model]]}))
    url = gateway.grpc_url if "grpc" in options else gateway.http_url
    text = perf_analyzer(
        "-m", model, "-u", url.partition("://")[2], "--input-data", str(tmp_path / "input.json"), *options
    )
    assert float(re.findall(r"throughput: ([\d.]+) infer/sec", text)[0]) > 0, text
    assert re.search(r"Successful request count: [1-9]", text), text
