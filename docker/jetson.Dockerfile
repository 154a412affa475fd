# TensorRT's trtexec as JetPack 6 has it: builds an engine of an ONNX file on the Jetson and times it.
# TensorRT in the image must be one the board's driver takes: L4T r36 for r10.3.0. Needs no context.
ARG TENSORRT_IMAGE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel

FROM ${TENSORRT_IMAGE}
# A base without trtexec fails here, not on the board. The user is in the group that owns /dev/nv*.
RUN test -x /usr/src/tensorrt/bin/trtexec \
    && useradd --create-home --uid 1000 --groups video edgekit
ENV PATH=/usr/src/tensorrt/bin:$PATH
USER 1000
WORKDIR /work
HEALTHCHECK NONE
ENTRYPOINT ["trtexec"]
CMD ["--help"]
