"""Photos: the table of labelled photos, synthetic photos, and the model inputs made from both."""
