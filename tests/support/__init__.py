"""Helpers that tests share: made-up records, small networks, the command line called in this process."""
