"""Sparse attention: a query reads few of its keys."""
