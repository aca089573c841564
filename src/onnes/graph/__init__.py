"""Periodic neighbour graphs and their batches."""
