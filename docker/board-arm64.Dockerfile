# What measures on an arm64 board (Raspberry Pi 3 to 5, 64-bit): edgekit's own script with LiteRT and ONNX
# Runtime; --target tflite-runtime for boards that must stay on its predecessor. Context: the repository's root.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
COPY docker/versions.txt /etc/edgekit/
COPY edgekit/device/harness/runner.py /opt/edgekit/
RUN useradd --create-home --uid 1000 edgekit
WORKDIR /work
HEALTHCHECK NONE
ENTRYPOINT ["python3", "/opt/edgekit/runner.py"]

# Its last release: Python 3.11 at most, numpy 1.
FROM base AS tflite-runtime
ARG TFLITE_RUNTIME=2.14.0
ARG TFLITE_RUNTIME_NUMPY=1.26.4
RUN pip install --no-cache-dir --only-binary :all: \
        "tflite-runtime==$TFLITE_RUNTIME" "numpy==$TFLITE_RUNTIME_NUMPY"
USER 1000

FROM base AS litert
RUN grep '==' /etc/edgekit/versions.txt >/etc/edgekit/constraints.txt \
    && pip install --no-cache-dir --only-binary :all: --constraint /etc/edgekit/constraints.txt \
        ai-edge-litert onnxruntime numpy
USER 1000
