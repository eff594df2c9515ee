"""Run the command line as ``python -m uebench``."""

from benchmark.cli.main import main

main()
