"""Physics of conventional superconductivity: spectra, moments, Tc formulas. Never imports torch."""
