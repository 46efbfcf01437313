"""The index and launch arithmetic of the CUDA kernels for up to 64 images of 4096 x 4096, tested in C++."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cuda_emulated import EMULATOR, REPOSITORY, compiler

from kernels.cuda.host.toolkit import INCLUDES


def test_up_to_64_images_of_4096_by_4096(tmp_path: Path) -> None:
    program = tmp_path / "cuda_index_test"
    command = [
        compiler(), "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas",
        "-fsanitize=undefined", "-fno-sanitize-recover=all", "-I", EMULATOR, *(f"-I{folder}" for folder in INCLUDES),
        REPOSITORY / "tests" / "kernels" / "cuda_index_test.cpp", EMULATOR / "emulator.cpp", "-o", program,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("cuda_index_test: all equal\n", 0), done.stderr
