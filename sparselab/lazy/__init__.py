"""Lazy neurons: activations that are mostly zero, and work that can be skipped because of it."""
