"""Neural networks, one a file."""
