"""Top-k gating: a router sends each token to few of many experts."""
