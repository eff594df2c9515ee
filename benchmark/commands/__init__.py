"""Commands with a module of their own. Each is registered in ``benchmark.cli``."""
