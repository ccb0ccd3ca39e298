"""Train networks on images, measure them and export them as bundles for the service."""
