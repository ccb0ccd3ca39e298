"""The HTTP interface: routes, uploads, limits, API keys, errors and the OpenAPI document.

A request to ``/predict`` passes through these modules, in this order: ``server/protocol``,
``api/limits``, ``api/routes/predict``, ``api/uploads``, ``inference/predictor``,
``imaging/model_input`` and ``inference/classifier``.
"""
