"""From a spectral function to Tc: spectra, closed formulas, Eliashberg, Debye, BCS. Never imports torch."""
