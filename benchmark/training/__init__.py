"""Decide numbers: training, loading, surrogates, gradients, image operations."""
