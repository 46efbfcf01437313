"""The `spade` command, a file a subcommand."""
