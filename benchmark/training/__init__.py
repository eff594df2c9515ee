"""Everything that decides a number: training, loading, surrogates, gradients, image operations."""
