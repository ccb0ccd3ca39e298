"""Measure the service on a GPU within a few minutes; ``--device cpu`` takes the same steps here."""
