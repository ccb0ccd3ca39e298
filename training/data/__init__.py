"""The data of a run: labelled images, the files they are read from, and photos."""
