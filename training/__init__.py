"""Train Keras networks on images, measure them and export them as bundles; ``service`` never imports this."""
