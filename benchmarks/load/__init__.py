"""Load on a running server, through any of its doors: `spade bench server`."""
