# edgekit with every runtime of the host. Context: the repository's root.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY edgekit edgekit
COPY devices devices
COPY recipes recipes
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}
# PyPI's torch for x86-64 carries CUDA; at equal versions pip prefers the +cpu build of this index.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY docker/versions.txt /etc/edgekit/
COPY --from=wheel /wheels /wheels
RUN grep '==' /etc/edgekit/versions.txt >/etc/edgekit/constraints.txt \
    && pip install --no-cache-dir --constraint /etc/edgekit/constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$(echo /wheels/edgekit-*.whl)[openvino,farm]"
RUN useradd --create-home --uid 1000 edgekit
USER 1000
# Beside what is built: a cache that outlives the container, writable for whoever owns the mounted folder.
ENV XDG_CACHE_HOME=/work/.cache
WORKDIR /work
# One command a container: there is nothing to be healthy between commands.
HEALTHCHECK NONE
ENTRYPOINT ["edgekit"]
CMD ["--help"]
