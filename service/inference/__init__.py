"""The models at work: load, decode, batch, classify. Knows nothing about HTTP."""
