"""Schedule the stages of a plan on worker processes."""
