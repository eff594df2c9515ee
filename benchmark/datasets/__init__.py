"""Data sets, one a file; the file name is the registered name.

Files that begin with ``_`` open and cache them.
"""
