"""The two consoles of the command line: results go to standard output, messages to standard error."""

from __future__ import annotations

from rich.console import Console

console = Console()

errors = Console(stderr=True)
