"""Photos: the table of labelled ones, ones made of data set images, and what the service sees of them."""
