"""Turn a suite into the cells and stages of a plan.

The planner runs no stage and writes no file.
"""
