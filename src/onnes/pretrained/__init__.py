"""Shipped weights with their cards, and tables the project computed."""
