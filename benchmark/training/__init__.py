"""The code that decides numbers: training, batches, surrogates, gradients, image operations."""
