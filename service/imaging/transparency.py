"""The background of pictures with transparent parts. Knows nothing about models."""

from __future__ import annotations

from PIL import Image, ImageChops

LIGHT_LEVEL = 210
"""Mean level, 0 to 255, from which the visible part of a picture counts as light.

Lighter garments get more right answers on ``DARK_GREY``, darker ones on white. Of 200 items of
Fashion-MNIST, drawn as cut-outs of a mean level of 249, 225, 207 and 135, ``resnet-8-photos``
answered 20, 74, 81 and 94 % rightly on white, 63, 75, 77 and 81 % on a grey of 128, and 78, 84, 83
and 72 % on a grey of 64.
"""
DARK_GREY = "#404040"


def choose_background(rgba: Image.Image) -> str:
    """Return white, or dark grey for a picture so light that it would vanish on white.

    Each pixel of ``rgba`` counts by its opacity, so invisible colours do not matter.
    """
    alpha = rgba.getchannel("A")
    visible = ImageChops.multiply(rgba.convert("L"), alpha)  # level x opacity / 255
    is_light = 255 * _sum(visible) > LIGHT_LEVEL * _sum(alpha)
    return DARK_GREY if is_light else "white"


def _sum(channel: Image.Image) -> int:
    return sum(level * count for level, count in enumerate(channel.histogram()))
