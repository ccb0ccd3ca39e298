"""What clients meet: routes, uploads, limits, keys and errors."""
