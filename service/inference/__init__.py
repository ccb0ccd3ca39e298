"""The models at work: load, decode, batch, classify."""
