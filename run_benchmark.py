"""Command-line entry point; see ``--help``."""

from benchmark.cli.main import main

if __name__ == "__main__":
    main()
