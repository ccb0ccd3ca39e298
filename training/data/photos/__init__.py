"""Photos: labelled ones, worn garments, and images of the data set made into uploads."""
