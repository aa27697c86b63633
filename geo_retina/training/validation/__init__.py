"""Score a network on ground that it was not trained on."""
