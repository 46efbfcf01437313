"""The tests of the kernels that this processor lacks, and of the cpu engine on them, emulated in child processes.

Where the processor has AMX, it runs these tests itself.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from amx_emulated import EMULATED, HAS_AVX512, REPOSITORY, NoEmulatorError, emulated_native

from kernels.isa import supported_isas

ISAS = " or ".join(EMULATED)
KERNELS = ("codebook", "conv", "embed", "executor", "image", "modulate", "modulated_conv", "norm", "rectangles")
# Large int8 codebooks stay out, whose twin in NumPy takes seconds, and int8 engines, whose rounding takes 13 s a model.
RUNS = {"images": ["cpu_engine and (amx or avx512) and not int8", "tests/serving/test_image_hashes.py"]}
if HAS_AVX512:  # AVX2 emulates AMX too slowly for more than the images
    RUNS["kernels"] = [
        f"{ISAS} or (int8 and not 300 and not 600)",
        *(f"tests/kernels/test_{name}.py" for name in (*KERNELS, "codebook_int8")),
    ]
    RUNS["engine"] = [
        "(amx or float16 or large_maps) and not int8",
        *(f"tests/serving/test_{name}.py" for name in ("engine_cpu", "edit_sequences")),
    ]


@pytest.mark.skipif("amx" in supported_isas(), reason="this processor has AMX")
@pytest.mark.parametrize("run", RUNS)
def test_on_the_emulator(run: str) -> None:
    try:
        emulated_native()
    except NoEmulatorError as error:
        pytest.skip(str(error))
    command = [sys.executable, "tests/kernels/amx_emulated.py", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k"]
    done = subprocess.run([*command, *RUNS[run]], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout, done.stdout
    assert "skipped" not in done.stdout, done.stdout
