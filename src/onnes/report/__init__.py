"""Reports and exports, from the ledger alone."""
