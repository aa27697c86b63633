"""Imagery of which a part cannot be read: which part, and reading the others."""
