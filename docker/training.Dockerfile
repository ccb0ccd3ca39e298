# Training, evaluation and export. From the repository root:
#   docker build -f docker/training.Dockerfile -t fashion-classifier-training .
#   docker run --rm --user "$(id -u)" -v "$PWD/data:/app/data:ro" -v "$PWD/runs:/app/runs" -v "$PWD/models:/app/models" \
#       fashion-classifier-training train --help
# Needs BuildKit, the default since Docker 23. Older versions need DOCKER_BUILDKIT=1.
# docker/Dockerfile explains the steps.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build

RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv

COPY requirements/all.txt /tmp/requirements.txt
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    if [ -s /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi; \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes --requirement /tmp/requirements.txt

# Training imports the image preparation and the bundle format from the service.
COPY service /app/service
COPY training /app/training
RUN python3 -m compileall -q /app && chmod -R a+rX /app


FROM ${BASE_IMAGE}

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
# HOME: Keras and matplotlib keep caches in the home folder, and user 10001 has none.
# ONNX Runtime's official builds report usage to Microsoft unless this is set (its Privacy.md).
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001:10001

ENTRYPOINT ["python", "-m", "training"]
CMD ["--help"]
