"""Runs stages: what a worker does, how it is checked, and what is recorded of the machine."""
