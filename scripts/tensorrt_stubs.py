"""The real TensorRT bindings, importable without TensorRT, and their types, for the checks of export/ and serving/.

The bindings' wheel is on PyPI. The libraries that the wheel links to are gigabytes. This script compiles three small
libraries in their place, which export the functions that the bindings look up. Every class, method and enum is then the
real one, and a call that would build or run an engine gets a null pointer.

    build/tensorrt/site       tensorrt, for PYTHONPATH
    build/tensorrt/libs       the three libraries, for LD_LIBRARY_PATH
    build/tensorrt/typings    stubs by pybind11-stubgen, for mypy (pyproject.toml names the folder)
"""

from __future__ import annotations

import ast
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "tensorrt"
WHEEL = "tensorrt-cu13-bindings==11.4.0.106"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
MODULES = ("tensorrt", "tensorrt.plugin")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = FOLDER / "made", f"{WHEEL} {sys.version} {Path(__file__).read_text()}"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        for name in ("site", "libs", "typings"):
            shutil.rmtree(FOLDER / name, ignore_errors=True)
        install_bindings()
        compile_libraries()
        generate_typings()
        stamp.write_text(wanted)


def install_bindings() -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--no-deps", "--target", str(FOLDER / "site"), WHEEL], "install the TensorRT bindings from PyPI")
    # The metapackage `tensorrt` is this package under its public name.
    (FOLDER / "site" / "tensorrt").symlink_to("tensorrt_bindings")


def compile_libraries() -> None:
    (FOLDER / "libs").mkdir()
    extension = next((FOLDER / "site" / "tensorrt_bindings").glob("tensorrt*.so"))
    # The extension holds the names of all functions of TensorRT's C interface that it looks up.
    names = set(re.findall(rb"\x00((?:create|get|init)\w*?(?:_INTERNAL|PluginRegistry|ParserVersion|InferPlugins))\x00",
                           extension.read_bytes()))  # fmt: skip
    source = FOLDER / "libs" / "null.c"
    source.write_text("".join(f"void* {name.decode()}(void) {{ return 0; }}\n" for name in sorted(names)))
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or "cc"
    for name in LIBRARIES:
        file = f"lib{name}.so.11"
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{file}"]
        run([compiler, *flags, "-o", str(FOLDER / "libs" / file), str(source)], "compile with a C compiler")


def generate_typings() -> None:
    for module in MODULES:
        command = [sys.executable, "-m", "pybind11_stubgen", module, "--output-dir", str(FOLDER / "typings")]
        run([*command, "--ignore-all-errors"], "generate type stubs (pybind11-stubgen is in the extra `dev`)")
    for path in (FOLDER / "typings").rglob("*.pyi"):
        text = mended(path.read_text())
        ast.parse(text, str(path))
        path.write_text(text)


def mended(text: str) -> str:
    """A stub with valid Python signatures where the bindings' own are not Python, and with names resolved."""
    text = re.sub(r"\bin: ", "in_: ", text)
    text = re.sub(r"channel_axis: typing.SupportsInt\)", "channel_axis: typing.SupportsInt = 0)", text)
    text = re.sub(r"(_flag\(self, flag: )\.\.\.\)", r"\1OnnxParserFlag)", text)
    text = re.sub(r"(def get_error\(.*\) -> )\.\.\.:", r"\1ParserError:", text)
    # `tensorrt.bool` is a data type that would hide the type of every flag.
    text = re.sub(r"(: |-> )bool\b", r"\1builtins.bool", text)
    return text.replace(
        "from __future__ import annotations\n", "from __future__ import annotations\nimport builtins\n", 1
    )


def environment() -> dict[str, str]:
    """The environment of this process, with the bindings and the libraries on their paths."""
    return os.environ | {"PYTHONPATH": str(FOLDER / "site"), "LD_LIBRARY_PATH": str(FOLDER / "libs")}


def run(command: list[str], what: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
    if done.returncode:
        sys.exit(f"error: expected to {what} but got:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
