"""`spade key`: a key for a caller of the gateway."""

from __future__ import annotations

from pathlib import Path

import click

from serving.cli.console import Command, note, say
from serving.cli.options import COUNT, OUT_FILE


@click.command(cls=Command, short_help="Make a key for a caller of the server.")
@click.argument("name")
@click.option("--file", "file", type=OUT_FILE, required=True, help="Add the key's hash to this file (`serve --keys`).")
@click.option(
    "--per-minute", type=COUNT, help="Images a minute that the key may ask for.  [default: the server's limit]"
)
def key(name: str, file: Path, per_minute: int | None) -> None:
    """Make a key for the caller NAME, and print it once.

    \b
    spade key studio --file keys.txt
    spade key batch-jobs --file keys.txt --per-minute 600

    The file holds the key's hash only. A running server reads the file again when it changes: to rotate a key, make a
    second one of the same name, and delete the first one's line when nobody uses it any more. Exit status: 0 made, 2
    wrong usage.
    """
    from serving.gateway.keys import KeysError, new_key

    try:
        text, made = new_key(name, per_minute)
    except KeysError as error:
        raise click.UsageError(str(error)) from None
    with file.open("a", encoding="utf-8") as lines:
        lines.write(made.line() + "\n")
    file.chmod(0o600)
    say(text)
    note(f"the hash is in {file}; the key itself is shown this once")
