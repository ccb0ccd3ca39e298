"""What clients meet: routes, uploads, limits, keys and errors.

A request to ``/predict`` passes ``server/protocol``, ``api/limits``, ``api/routes/predict``,
``api/uploads``, ``inference/predictor``, ``imaging/model_input`` and ``inference/classifier``.
"""
