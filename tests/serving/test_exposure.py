"""Triton's own ports beyond this machine: only of a version that may face a network, or with consent."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.cli.main import main
from serving.triton.exposure import ExposureError, check_exposure
from serving.triton.install import find_tritonserver
from serving.triton.known_faults import KNOWN, core, faults_of, may_face_networks


def test_the_installed_triton_has_a_known_version() -> None:
    assert core(find_tritonserver().version) is not None


def test_a_vulnerable_triton_stays_on_loopback_unless_told_otherwise() -> None:
    check_exposure("127.0.0.1", "2.51.0", consent=False)
    check_exposure("0.0.0.0", "2.51.0", consent=True)
    check_exposure("0.0.0.0", "2.75.0", consent=False)
    for version in ("2.51.0", "", "2.69.0"):
        with pytest.raises(ExposureError, match=r"release 26\.06.* on 0\.0\.0\.0 .*wraps to 0.*--vulnerable-triton"):
            check_exposure("0.0.0.0", version, consent=False)


def test_later_versions_have_fewer_faults() -> None:
    assert len(faults_of("2.51.0")) > len(faults_of("2.53.0")) > len(faults_of("2.75.0")) > 0
    assert faults_of("newest") == faults_of("2.51.0")
    assert not may_face_networks("newest")


def test_the_docs_list_every_known_fault() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    for known in KNOWN:
        mended = "not known" if known.mended is None else "{}.{}".format(*known.mended)
        assert f"| {known.fault} | {mended} |" in page


def test_serve_says_why_it_does_not_open_the_ports() -> None:
    done = CliRunner().invoke(main, ["serve", "--direct", "--without-keys", "--host", "0.0.0.0"])
    assert done.exit_code == 1
    assert "leave out --direct, whose gateway checks every request first" in done.output
