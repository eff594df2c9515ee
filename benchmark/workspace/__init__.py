"""What the commands and Python users call: a workspace, and functions."""
