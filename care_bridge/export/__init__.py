"""A model written down for another runtime."""
