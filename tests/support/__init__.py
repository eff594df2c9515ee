"""Helpers that tests share: made-up records, small networks, a command line in this process."""
