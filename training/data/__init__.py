"""The data of a run: labelled images, the formats of their files, and photos."""
