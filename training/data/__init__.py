"""The data of a run: labelled images in memory, the files they come from, and photos."""
