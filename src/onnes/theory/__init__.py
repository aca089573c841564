"""Physics between a spectral function and Tc: spectra, closed formulas, Eliashberg, Debye and BCS. No torch."""
