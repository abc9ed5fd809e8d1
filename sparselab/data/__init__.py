"""Data that is on every machine: text and images that come with the libraries, and planted truths."""
