"""Generators of crystals: training and sampling."""
