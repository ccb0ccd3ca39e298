"""Export of runs as bundles, the golden set of the tests, and variants of the graph."""
