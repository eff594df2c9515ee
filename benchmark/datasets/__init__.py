"""Data sets, one in each file; the file name is the registered name.

Files whose names begin with ``_`` open and cache them.
"""
