"""Classify millions of images without HTTP: ``python -m service.offline SOURCE --output FOLDER``.

Ray Data distributes the work over the cores or GPUs of one machine or a cluster. Needs the extra
``ray``.
"""
