"""What README and docs say, checked against the code."""
