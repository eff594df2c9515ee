"""``python -m uebench``: the command line."""

from benchmark.cli.main import main

main()
