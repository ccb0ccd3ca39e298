"""The Open Inference Protocol, version 2, over REST: the paths below ``/v2``."""
