"""From a spectral function to Tc: spectra, closed formulas, Eliashberg, Debye and BCS. Never imports torch."""
