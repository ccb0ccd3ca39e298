"""Measuring: calibration, figures on the test set and on photos, and the pages that show them."""
