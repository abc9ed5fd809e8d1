"""Sparse autoencoders: activations written as few atoms of a learned dictionary."""
