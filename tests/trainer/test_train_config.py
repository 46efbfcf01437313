"""Configurations: every file of the project loads, every field is documented, and mistakes are named."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from small_run import small

from spade_core.config import ConfigError
from trainer.config_file import field_table, from_tables, load_config, to_toml

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = sorted((REPOSITORY / "configs").rglob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_file_of_the_project_loads_and_has_every_field_with_its_help(path: Path) -> None:
    written = path.read_text().split("\n\n", 1)[1]  # below the words on what it is for
    assert written == to_toml(load_config(path))


@pytest.mark.parametrize("name", ["coco", "ade20k", "cityscapes"])
def test_the_papers_configurations_train_as_the_paper_does(name: str) -> None:
    optim = load_config(REPOSITORY / "configs" / f"{name}.toml").optim
    assert (optim.updates, optim.decay_each, optim.lr, optim.ttur, optim.betas) == (
        "alternating", "epoch", 2e-4, True, (0.0, 0.9)
    )  # fmt: skip


def test_a_configuration_written_is_the_one_read() -> None:
    config = small(optim={"lr": 3e-5}, run={"out": 'a "quoted" name, ö, 🏞'})
    assert from_tables(tomllib.loads(to_toml(config)), "itself") == config


def test_the_document_lists_every_field() -> None:
    text = (REPOSITORY / "docs/training.md").read_text()
    for name, default, help_text in field_table():
        assert f"| `{name}` | `{default}` | {help_text} |" in text, name


def test_overrides_are_toml_values_or_bare_text(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(to_toml(small()))
    config = load_config(
        path, ["optim.lr=1e-4", "model.nf=4", "run.out=out/x", "networks.form=dense", "data.flip=false"]
    )
    assert (config.optim.lr, config.model.nf, config.run.out) == (1e-4, 4, "out/x")
    assert (config.networks.form, config.data.flip) == ("dense", False)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"optm": {}}, r"expected the tables model, .* but got optm"),
        ({"optim": {"lr": 1e-4, "lrr": 1}}, r"in \[optim\] of a file but got lrr; `spade train --fields` lists"),
        ({"optim": {"batch": 2.5}}, r"expected optim.batch to be of type int but got 2.5"),
        ({"optim": {"batch": 0}}, r"expected optim.batch to be 1 or more but got 0"),
        ({"optim": {"beta2": 1.0}}, r"expected optim.beta2 in 0..1"),
        ({"optim": {"beta1": -0.5}}, r"expected optim.beta1 in 0..1, 1 excluded, or -1, but got -0.5"),
        ({"optim": {"updates": "both"}}, r"expected optim.updates to be one of shared, alternating but got 'both'"),
        ({"optim": {"epochs": 0}}, r"expected optim.epochs \+ optim.decay_epochs to be 1 or more"),
        ({"loss": {"gan": "hing"}}, r"expected loss.gan to be one of hinge, .* but got 'hing'"),
        ({"data": {"layout": "coco"}}, r"expected data.root to be the folder of the data set 'coco'"),
        ({"model": {"preset": "demos"}}, r"expected model.preset out of coco, .* but got 'demos'"),
        ({"model": {"preset": "coco"}}, r"expected model.preset 'demo' for the layout 'scenes'"),
        ({"data": {"colours": "c.csv"}}, r"expected no data.colours for the layout 'scenes', .* but got 'c.csv'"),
        ({"model": {"preset": "demo", "nff": 3}}, r"unknown \['nff'\]"),
        ({"run": {"device": "tpu"}}, r"expected run.device auto, cpu or cuda but got 'tpu'"),
    ],
)
def test_mistakes_are_named(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_tables({"model": {"preset": "demo"}} | tables, "a file")


def test_an_override_without_a_section_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[model]\npreset = 'demo'\n")
    with pytest.raises(ConfigError, match=r"expected --set section.field=value but got 'lr=1'"):
        load_config(tmp_path / "c.toml", ["lr=1"])
    (tmp_path / "c.toml").write_text("model = 3\n")
    with pytest.raises(ConfigError, match=r"expected the table \[model\] in .* but got 3"):
        load_config(tmp_path / "c.toml", ["model.nf=4"])
    with pytest.raises(ConfigError, match=r"expected a readable TOML file but got '.*missing.toml'"):
        load_config(tmp_path / "missing.toml")
