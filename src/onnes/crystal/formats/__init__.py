"""One parser a file format; each turns text into `onnes.crystal.parsed.Parsed` or raises an OnnesError."""
