"""Reading Triton's log: the last errors, each once, without noise and Python stacks."""

from __future__ import annotations

from serving.triton.server_log import has_lines, is_warning, last_errors

LOG = """\
I1124 23:59:58.000000 1 server.cc:1] "started"
E1124 23:59:59.000000 1 cuda.cc:1] "CudaDriverHelper has not been initialized."
E1124 23:59:59.000000 1 model.cc:1] "failed to load 'spade': no weights\\n\\nAt:\\n  model.py(3)"
E1124 23:59:59.000000 1 model.cc:1] "failed to load 'spade': no weights\\n\\nAt:\\n  model.py(3)"
Traceback (most recent call last):
  File "x.py", line 1
ValueError: a reason
error: creating server: Internal
"""


def test_the_last_errors_are_each_said_once() -> None:
    assert last_errors(LOG) == "failed to load 'spade': no weights; ValueError: a reason; creating server: Internal"


def test_a_log_without_errors_gives_its_last_lines() -> None:
    assert last_errors("one\ntwo\nthree\nfour") == "its log holds no error: two | three | four"


def test_lines_of_triton_are_told_from_others() -> None:
    assert has_lines(LOG)
    assert not has_lines("python: something")
    assert [is_warning(line) for line in LOG.splitlines()[:3]] == [False, True, True]
