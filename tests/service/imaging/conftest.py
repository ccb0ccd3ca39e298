"""Lets the tests of this folder write HEIC files."""

import pillow_heif

pillow_heif.register_heif_opener()
