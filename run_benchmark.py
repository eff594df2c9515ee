"""The command line's door. ``python run_benchmark.py --help`` tells the rest."""

from benchmark.cli import main

if __name__ == "__main__":
    main()
