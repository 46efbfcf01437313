"""The `spade` command, one file for each subcommand."""
