"""The floor below the command line: a workspace, and the functions that Python users call."""
