"""Check labels and scenes before a training is spent on them."""
