"""Weights & Biases beside TensorBoard: its own offline mode, and the message where it is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import small

from trainer.config_file import to_toml
from trainer.loop import train


def test_rows_scores_and_samples_reach_weights_and_biases_offline(tmp_path: Path) -> None:
    config = small(
        tmp_path / "run", run={"wandb": "spade-test"}, validation={"steps": 2, "images": 2}, data={"scenes": 4}
    )
    (tmp_path / "c.toml").write_text(to_toml(config))
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "serving.cli", "train", str(tmp_path / "c.toml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (board,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    identity = (tmp_path / "run" / "wandb.id").read_text().strip()
    assert identity in board.name
    content = board.read_bytes()
    assert all(name in content for name in (b"spade-test", b"feature_matching", b"validation/miou", b"samples"))
    assert list(board.parent.glob("files/media/images/samples_*.png"))
    assert list((tmp_path / "run" / "tensorboard").iterdir()), "TensorBoard has its files too"


def test_without_the_package_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"expected the package wandb .*pip install -e '\.\[wandb\]'"):
        train(small(tmp_path, run={"wandb": "spade-test"}))
