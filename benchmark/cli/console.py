"""The consoles of the command line: results on standard output, messages on standard error."""

from __future__ import annotations

from rich.console import Console

console = Console()

errors = Console(stderr=True)
