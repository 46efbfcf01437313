"""The hash of the weights: one flipped bit is found, by --sha256 and by the checksum file beside the weights."""

from __future__ import annotations

import hashlib
import shutil
import urllib.request
from pathlib import Path

import pytest
from served import FREE_PORTS

from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeError, ServeOptions, Server, serve


@pytest.fixture
def copied(tiny_weights: Path, tmp_path: Path) -> Path:
    """Weights of our own, with their checksum file as sha256sum writes it."""
    copy = tmp_path / "tiny.safetensors"
    shutil.copyfile(tiny_weights, copy)
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    copy.with_name("tiny.safetensors.sha256").write_text(f"{digest}  tiny.safetensors\n")
    return copy


def test_a_flipped_bit_keeps_the_server_from_starting(copied: Path) -> None:
    data = bytearray(copied.read_bytes())
    data[-1000] ^= 1  # still finite numbers, which load
    copied.write_bytes(data)
    options = ServeOptions(ModelOptions(copied, threads=1, decoders=1), **FREE_PORTS)
    with pytest.raises(ServeError, match=r"expected weights of sha256 .* but got .* damaged"), serve(options):
        pass


def test_the_expected_hash_comes_from_the_option_or_the_file(copied: Path) -> None:
    digest = hashlib.sha256(copied.read_bytes()).hexdigest()
    assert ModelOptions(copied).expected_sha256() == digest
    assert ModelOptions(copied, sha256="AB" * 32).expected_sha256() == "ab" * 32
    copied.with_name("tiny.safetensors.sha256").unlink()
    assert ModelOptions(copied).expected_sha256() is None
    assert ModelOptions().expected_sha256() is None


def test_what_is_no_hash_is_an_error(copied: Path) -> None:
    with pytest.raises(ValueError, match="a sha256 of 64 hex digits in --sha256 but got 'abc'"):
        ModelOptions(copied, sha256="abc")
    copied.with_name("tiny.safetensors.sha256").write_text("not found\n")
    with pytest.raises(ValueError, match=r"64 hex digits in '.*tiny\.safetensors\.sha256' but got 'not'"):
        ModelOptions(copied).expected_sha256()


def test_the_hash_is_in_the_metrics_and_the_log(tiny_server: Server, tiny_weights: Path) -> None:
    digest = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    with urllib.request.urlopen(tiny_server.metrics_url, timeout=10) as answer:
        assert f'sha256="{digest}"' in answer.read().decode()
    assert f"sha256 {digest}" in tiny_server.log_text()
