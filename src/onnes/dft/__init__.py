"""Electron-phonon coupling with Quantum ESPRESSO: inputs, pseudopotentials, parsers, estimates, running."""
