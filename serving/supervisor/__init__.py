"""Keeps the processes of `spade serve` alive: notices what dies, hangs or leaks, and replaces it."""
