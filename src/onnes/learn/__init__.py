"""Targets, fitting, ensembles, calibration, checkpoints."""
