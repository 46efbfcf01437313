"""The lock file is of this pyproject.toml, and has a hash for every file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).resolve().parents[2]
LOCK = tomllib.loads((REPOSITORY / "uv.lock").read_text())
OURS = next(package for package in LOCK["package"] if package["name"] == "spade-serve")


def declared() -> set[tuple[str, str]]:
    """Each requirement of the project and its extras: name, range."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    read = [Requirement(line) for line in lines]
    return {(one.name.replace("_", "-"), str(one.specifier)) for one in read if one.name != "spade-serve"}


def locked() -> set[tuple[str, str]]:
    entries: list[dict[str, Any]] = OURS["metadata"]["requires-dist"]
    return {
        (one["name"], str(SpecifierSet(one.get("specifier", "")))) for one in entries if one["name"] != "spade-serve"
    }


def test_it_is_of_this_project_file() -> None:
    assert locked() == declared(), "run scripts/lock"


def test_every_file_has_a_hash() -> None:
    files = [file for package in LOCK["package"] for file in [*package.get("wheels", []), package.get("sdist")] if file]
    assert len(files) > 1000
    assert all(file["hash"].startswith("sha256:") for file in files)


def test_it_has_the_pytorch_that_the_installation_script_installs() -> None:
    script = (REPOSITORY / "scripts/install.py").read_text()
    torch = next(package for package in LOCK["package"] if package["name"] == "torch")
    assert f'TORCH = "torch=={torch["version"]}"' in script
