"""Selecting k of n: the primitives that the six families share."""
