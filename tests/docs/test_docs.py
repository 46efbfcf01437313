"""The documents against the repository: each path, module and link in them exists, and no command is left out."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from tritonclient.grpc import model_config_pb2

from serving.cli.main import COMMANDS
from serving.engines.names import ENGINES, PRECISIONS
from serving.triton.model_config import ModelOptions, spade_config, spade_image_config
from spade_core.config import PRESETS, preset

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
PAGES = sorted(path for path in TRACKED if path.endswith(".md"))
OF_TODAY = [page for page in PAGES if page != "CHANGELOG.md"]  # which names what is gone, too
SOURCES = [path for path in TRACKED if path.endswith((".py", ".cpp", ".hpp", ".h", ".cu", ".sh", ".toml"))]
PACKAGES = ("spade_core", "kernels", "export", "serving", "trainer", "benchmarks")
FOLDERS = (*PACKAGES, "tests", "docs", "configs", "scripts", ".ci")

PATH = re.compile(rf"(?<![\w./-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*{{}},-]*+)(?!<)")
MODULE = re.compile(rf"(?<![\w./-])((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?![\w/])")
LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def text(page: str) -> str:
    return (ROOT / page).read_text()


def code(page: str) -> Iterator[str]:
    """The text of each code block and of each `code` of a page."""
    whole = text(page)
    yield from FENCE.findall(whole)
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", whole))


@pytest.mark.parametrize("page", OF_TODAY)
def test_paths_exist(page: str) -> None:
    missing = [path for piece in code(page) for path in PATH.findall(piece) if not exists(path)]
    assert not missing


def test_installation_advice_can_be_followed() -> None:
    """No index has the package: extras come from the checkout, or from a wheel by its address."""
    advice = re.compile(r"pip install[^`\n]*\bspade-serve(?![^`\n]* @ )")
    files = [*OF_TODAY, *(path for path in SOURCES if path.startswith(PACKAGES))]
    assert not [path for path in files if advice.search(text(path))]


@pytest.mark.parametrize("page", OF_TODAY)
def test_modules_exist(page: str) -> None:
    missing = [name for piece in code(page) for name in MODULE.findall(piece) if not defined(name)]
    assert not missing


@pytest.mark.parametrize("page", OF_TODAY)
def test_commands_are_modules_that_run(page: str) -> None:
    named = {name for piece in code(page) for name in re.findall(r"(?:python|torchrun)[^\n]* -m ([\w.]+)", piece)}
    missing = [name for name in sorted(named) if name.split(".")[0] in PACKAGES and not runs(name)]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    broken = [link for link in LINK.findall(FENCE.sub("", text(page))) if not resolves(page, link)]
    assert not broken


def test_sources_name_paths_and_modules_that_exist() -> None:
    sources = [path for path in SOURCES if path.split("/")[0] != "tests" and not path.endswith(".toml")]
    paths = {(path, named) for path in sources for named in PATH.findall(text(path)) if "{" not in named}
    modules = {(path, named) for path in sources for named in re.findall(r"python -m ([\w.]*\w)", text(path))}
    assert len(paths) > 10
    assert len(modules) > 10
    assert not [(path, named) for path, named in sorted(paths) if not exists(named)]
    assert not [(path, named) for path, named in sorted(modules) if named.split(".")[0] in PACKAGES and not runs(named)]


def test_the_site_shows_every_page() -> None:
    nav = yaml.safe_load(text("mkdocs.yml"))["nav"]
    shown = {page for page in pages_of(nav) if (ROOT / "docs" / page).exists()}
    assert shown == {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}


def test_every_benchmark_is_described() -> None:
    described = text("docs/benchmark-commands.md")
    modules = {module(path) for path in SOURCES if path.startswith("benchmarks/") and path.endswith(".py")}
    commands = {name for name in modules if runs(name)}
    commands -= {"benchmarks.gpu"}  # benchmarks/gpu/gpu.sh
    assert {"benchmarks.model", "benchmarks.model.styles"} <= commands
    assert not [name for name in sorted(commands) if f"python -m {name} " not in described]


def test_every_environment_variable_is_described() -> None:
    described = "".join(map(text, PAGES))
    read = {
        name
        for path in SOURCES
        if path.split("/")[0] in PACKAGES
        for name in re.findall(r"[\"'](SPADE_[A-Z_]*[A-Z])[\"']", text(path))
    }
    assert "SPADE_CPU_ISA" in read
    assert not [name for name in sorted(read) if name not in described]


def test_the_readme_names_every_command() -> None:
    readme = text("README.md")
    assert not [name for name in COMMANDS if f"spade {name}" not in readme]


def test_every_preset_has_its_ids_described() -> None:
    described = text("docs/label-maps.md")
    assert not [name for name in PRESETS if f"| `{name}` |" not in described]


@pytest.mark.parametrize(
    "model",
    [spade_config(ModelOptions(), preset("coco")), spade_image_config(ModelOptions(), preset("demo"))],
    ids=["spade", "image"],
)
def test_every_tensor_of_a_model_is_described(model: model_config_pb2.ModelConfig) -> None:
    section = text("docs/serving.md").split(f"## Model `{model.name}`")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    rows = {name: line for line in lines for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}
    tensors = [*model.input, *model.output]
    assert len(tensors) > 5
    assert not {tensor.name for tensor in tensors} - set(rows)
    for tensor in tensors:
        kind = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
        assert f"| {kind} [N, " in rows[tensor.name] or "| as above |" in rows[tensor.name]


def test_every_request_parameter_is_described() -> None:
    serving = [path for path in SOURCES if path.startswith("serving/")]
    read = {name for path in serving for name in re.findall(r"""parameters\.get\(["'](\w+)["']""", text(path))}
    assert {"quality", "sent_unix_us"} <= read
    assert not [name for name in sorted(read) if f"`{name}`" not in text("docs/serving.md")]


def test_every_engine_and_precision_is_described() -> None:
    described = "".join(text(page) for page in PAGES if page != "docs/commands.md")
    assert not [name for name in (*ENGINES, *PRECISIONS) if not re.search(rf"`[^`\n]*\b{name}`", described)]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("kernels.ops.plan", True),
        ("serving.client.client.Client", True),
        ("spade_core.config.PRESETS", True),
        ("serving.client.client.Server", False),
        ("spade_core.checkpoints", False),
    ],
)
def test_a_name_is_known_when_it_is_defined(name: str, known: bool) -> None:
    assert defined(name) == known


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("configs/*.toml", True),
        ("docs/index.md", True),
        ("kernels/cpu/", True),
        ("benchmarks/results/model-coco-DATE.json", True),
        ("kernels/{ops,cuda}/", True),
        ("kernels/{ops,gpu}/", False),
        ("docs/gone.md", False),
    ],
)
def test_a_path_is_known_when_a_file_has_it(path: str, known: bool) -> None:
    assert exists(path) == known


def exists(path: str) -> bool:
    """Whether the repository has such a path; `*`, `{a,b}` and the placeholder DATE stand for several."""
    if braces := re.search(r"\{([^}]*)\}", path):
        return all(exists(path[: braces.start()] + one + path[braces.end() :]) for one in braces[1].split(","))
    pattern = path.rstrip("/.,").replace("DATE", "*")
    if pattern.startswith("benchmarks/results/GPU-"):
        return True  # what benchmarks/gpu/gpu.sh will write
    if "*" in pattern:
        return any(ROOT.glob(pattern))
    return pattern in TRACKED or any(tracked.startswith(f"{pattern}/") for tracked in TRACKED)


def defined(name: str) -> bool:
    """Whether `name` is a module of the repository, or something that a module defines, as `kernels.ops.plan.plan`."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module_file = file_of(".".join(parts[:count]))
        if module_file:
            return count == len(parts) or parts[count] in names_of(module_file)
    return False


def runs(name: str) -> bool:
    """Whether `python -m name` has something to run."""
    file = file_of(name)
    return f"{name.replace('.', '/')}/__main__.py" in TRACKED or (file != "" and '__name__ == "__main__"' in text(file))


def file_of(name: str) -> str:
    path = name.replace(".", "/")
    inside = [f"{path}/run.py", f"{path}/__init__.py"] if f"{path}/__main__.py" in TRACKED else [f"{path}/__init__.py"]
    return next((file for file in (f"{path}.py", f"{path}.pyi", *inside) if file in TRACKED), "")


def module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def names_of(path: str) -> frozenset[str]:
    """The names that a module defines or imports at its top level."""
    names: set[str] = set()
    for node in ast.parse(text(path)).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return frozenset(names)


def resolves(page: str, link: str) -> bool:
    """Whether a relative link of a page leads to a file of the repository and, with `#`, to a heading in the file."""
    target, _, anchor = link.partition("#")
    path = (ROOT / page).parent / target if target else ROOT / page
    if not path.exists() or ROOT not in path.resolve().parents:
        return False
    return not anchor or anchor in anchors(path.resolve())


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)


def pages_of(nav: object) -> Iterator[str]:
    match nav:
        case str():
            yield nav
        case list():
            for entry in nav:
                yield from pages_of(entry)
        case dict():
            for entry in nav.values():
                yield from pages_of(entry)
