"""The `spade` command against a real server: remote synthesis, the demo, and serving until a signal."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from served import TINY, blocks

from serving.cli.main import main
from serving.client.client import Client
from serving.triton.server import Server


def spade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_gives_the_images_of_the_local_engine(
    demo_server: Server, demo_weights: Path, tmp_path: Path, protocol: str
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    for i in range(3):
        Image.fromarray(blocks(i)[0]).save(maps / f"{i}.png")
    (maps / "bad.png").write_bytes(b"nonsense")
    url = demo_server.grpc_url if protocol == "grpc" else demo_server.http_url
    common = ("synthesize", "--labels", maps, "--seed", "4")
    here = ("--weights", demo_weights, "--precision", "fp32")
    remote = spade(*common, "--server", url, "--out", tmp_path / "remote")
    local = spade(*common, *here, "--out", tmp_path / "local")
    for result in (remote, local):
        assert result.exit_code == 1
        assert "3 of 4 images written" in result.output
        assert f"failed: {maps / 'bad.png'}" in result.output
    for i in range(3):
        a, b = (np.asarray(Image.open(tmp_path / where / f"{i}.png")).astype(int) for where in ("remote", "local"))
        assert np.abs(a - b).max() <= 1  # sums of another order may cross a grey level


def test_instances_and_rgb_maps_reach_the_server(tiny_server: Server, tmp_path: Path) -> None:
    labels = blocks(1, size=64, classes=8)[0]
    colours = np.arange(24, dtype=np.uint8).reshape(8, 3) * 9
    Image.fromarray(colours[labels]).save(tmp_path / "rgb.png")
    Image.fromarray(labels).save(tmp_path / "ids.png")
    Image.fromarray(blocks(2, size=64)[0]).save(tmp_path / "instances.png")
    table = [
        {"id": i, "r": int(r), "g": int(g), "b": int(b), "name": f"class {i}"} for i, (r, g, b) in enumerate(colours)
    ]
    (tmp_path / "colours.json").write_text(json.dumps(table))
    common = ("--instances", tmp_path / "instances.png", "--server", tiny_server.grpc_url, "--out", tmp_path / "out")
    for name, options in {"ids": (), "rgb": ("--colours", tmp_path / "colours.json")}.items():
        result = spade("synthesize", tmp_path / f"{name}.png", *common, *options)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "out/rgb.png").read_bytes() == (tmp_path / "out/ids.png").read_bytes()


def test_the_style_of_an_image_goes_to_the_server(demo_server: Server, demo_weights: Path, tmp_path: Path) -> None:
    Image.fromarray(blocks(0)[0]).save(tmp_path / "map.png")
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "style.png")
    common = (
        "synthesize",
        tmp_path / "map.png",
        "--style",
        tmp_path / "style.png",
        "--weights",
        demo_weights,
    )
    assert spade(*common, "--server", demo_server.grpc_url, "--out", tmp_path / "remote").exit_code == 0
    assert spade(*common, "--precision", "fp32", "--out", tmp_path / "local").exit_code == 0
    a, b = (np.asarray(Image.open(tmp_path / where / "map.png")).astype(int) for where in ("remote", "local"))
    assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_ctrl_c_does_not_wait_for_a_server_that_hangs(tmp_path: Path, protocol: str) -> None:
    Image.fromarray(blocks(0)[0]).save(tmp_path / "map.png")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{protocol}://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.cli", "synthesize", tmp_path / "map.png", "--server", url, "--out", "out"],
            stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        )  # fmt: skip
        silent.settimeout(120)
        connection, _ = silent.accept()  # the command waits for an answer from here on
        with connection:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, rest
    assert "interrupted: the images written so far are whole" in rest
    assert time.monotonic() - began < 5  # a second on an idle machine
    assert "Traceback" not in rest


def test_the_demo_writes_images_and_a_contact_sheet(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", "demo", "--out", tmp_path / "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "8 label maps in one batch over gRPC" in done.stdout
    assert re.search(r"batch_size 8\b", done.stdout)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"contact_sheet.png", *(f"{i}.png" for i in range(8))}
    with Image.open(tmp_path / "out/contact_sheet.png") as sheet:
        assert sheet.size == (4 * 136 + 8, 2 * 272 + 8)
    assert "UNTRAINED" not in done.stderr


def test_serve_announces_itself_and_stops_on_a_signal(tiny_weights: Path, tmp_path: Path) -> None:
    options = ["--weights", str(tiny_weights), "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    environment = {**os.environ, "SPADE_SERVE_LOG_FILE": str(tmp_path / "triton.log")}
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.cli", "serve", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stderr is not None
    try:
        ready = next(line for line in process.stderr if line.startswith("ready: "))
        with Client(re.findall(r"grpc://\S+", ready)[0]) as client:
            maps = blocks(0, size=64, classes=TINY.label_nc)
            assert client.synthesize(maps, maps.astype(np.int32)).images.shape == (1, 64, 64, 3)
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0, rest
    assert "every accepted request was answered" in rest
    assert (tmp_path / "triton.log").exists()
