"""Publishing: from a run to a bundle, the golden set of the tests, and variants of the graph."""
