"""Sparse search: connections that move while the network trains."""
