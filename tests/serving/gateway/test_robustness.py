"""Short runs of scripts/fuzz.py and scripts/soak.py; the figures of long ones stand in docs/operations.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from serving.gateway.pair import Pair

SCRIPTS = Path(__file__).parents[3] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_malformed_requests_are_refused_and_harm_nothing(gateway: Pair) -> None:
    lines: list[str] = []
    assert script("fuzz").run(gateway, 150, seed=7, show=lines.append) == 0, lines
    assert len(lines) == 4
    assert all("refused" in line or "400" in line or "INVALID_ARGUMENT" in line for line in lines), lines


def test_images_stay_the_same_through_every_door(gateway: Pair) -> None:
    report = script("soak").run(gateway, 30)
    assert (report["wrong"], report["restarts"]) == (0, 0)
    assert report["last"]["requests"] == 30
    assert report["last"]["descriptors"] > 0


def test_growth_is_told_from_noise() -> None:
    soak = script("soak")
    requests = list(range(0, 20_000, 100))
    noise = np.random.default_rng(0).normal(0, 1e6, len(requests)).astype(int)
    flat = {"slope": 0.0, "plus_minus": 0.0}
    report = {"wrong": 0, "restarts": 0, "growth_per_request": {"descriptors": flat}}
    for leak, found in ((0, False), (5000, True)):
        values = [int(leak * request + extra) for request, extra in zip(requests, noise, strict=True)]
        slope, plus_minus = soak.slope(requests, values)
        assert abs(slope - leak) < 2 * plus_minus
        report["growth_per_request"]["triton_bytes"] = {"slope": slope, "plus_minus": plus_minus}
        assert bool(soak.faults(report)) == found
