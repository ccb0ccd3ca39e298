"""Photos: labelled ones, ones made from data set images, and what the service sees of them."""
