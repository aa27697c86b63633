"""Labels on scenes, their split into train, val and test, and samples of them."""
