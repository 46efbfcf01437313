"""deploy/compose and deploy/systemd: valid, and true to the server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from serving.cli.serve import serve

ROOT = Path(__file__).resolve().parents[2]
COMPOSE, UNIT = ROOT / "deploy/compose", ROOT / "deploy/systemd/spade-serve.service"


def services(name: str = "compose.yaml") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text())["services"]
    return found


@pytest.mark.parametrize("name", ["compose.yaml", "gpu.yaml"])
def test_compose_files_follow_the_specification(name: str) -> None:
    text = (COMPOSE / name).read_text()
    compose_spec.PyCompose.from_yaml(text)
    with pytest.raises(Exception, match="imag"):
        compose_spec.PyCompose.from_yaml(text.replace("image:", "imag:"))


def test_the_server_of_compose_needs_no_right() -> None:
    spade = services()["spade"]
    assert (spade["read_only"], spade["cap_drop"], spade["shm_size"]) == (True, ["ALL"], "1gb")
    assert spade["tmpfs"] == ["/tmp:size=256m,mode=1777"]
    drain = next(parameter for parameter in serve.params if parameter.name == "drain")
    assert isinstance(drain.default, int)
    assert int(spade["stop_grace_period"].removesuffix("s")) > drain.default
    assert "/readyz" in spade["healthcheck"]["test"][-1]
    made = {"./keys.txt"}  # by `spade key`
    binds = [one["source"] for found in services().values() for one in found["volumes"] if one["type"] == "bind"]
    assert all((COMPOSE / source).exists() for source in binds if source not in made)
    for one in ("compose.yaml", "gpu.yaml"):
        build = services(one)["spade"]["build"]
        assert (COMPOSE / build["context"] / build["dockerfile"]).is_file()


def arguments(tmp_path: Path) -> list[str]:
    line = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    program, command, *rest = line.removeprefix("ExecStart=").split()
    assert (Path(program).name, command) == ("spade", "serve")
    (tmp_path / "keys.txt").touch()
    return [one.replace("/etc/spade", str(tmp_path)) for one in rest]


def test_the_unit_starts_a_server_and_waits_for_its_drain(tmp_path: Path) -> None:
    context = serve.make_context("serve", arguments(tmp_path))  # raises for an unknown option
    limit = next(line for line in UNIT.read_text().splitlines() if line.startswith("TimeoutStopSec="))
    assert int(limit.partition("=")[2]) > context.params["drain"] + 10


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze")
    unit = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/spade/bin/spade", sys.executable)  # the program must exist
    for extra, problem in (("", ""), ("ProtectSystm=strict\n", "'ProtectSystm'")):
        unit.write_text(text.replace("NoNewPrivileges=yes\n", f"NoNewPrivileges=yes\n{extra}"))
        done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
        assert problem in done.stderr
        assert problem or (done.returncode, done.stderr.replace(str(unit), "")) == (0, "")
