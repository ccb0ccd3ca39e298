"""The routes, one file for each path of the API."""
