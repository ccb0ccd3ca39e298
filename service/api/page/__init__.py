"""The page for people at `/`, the documentation at `/docs`, and the files that both load."""
