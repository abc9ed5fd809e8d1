"""What is counted and compared across methods, in NumPy."""
