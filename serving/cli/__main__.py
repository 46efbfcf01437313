"""`python -m serving.cli`, the same as `spade`."""

from serving.cli.main import main

main()
