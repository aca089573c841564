"""Reading, checking and standardising crystals. Never imports torch."""
