"""Labelled crystals: the record schema, named data sets, grouped splits."""
