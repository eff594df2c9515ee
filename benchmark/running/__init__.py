"""Run stages, check their results, and describe the machine that ran them."""
