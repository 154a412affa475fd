# Coral's edgetpu_compiler, from Google's package repository (x86-64 only). Needs no context.
ARG DEBIAN_IMAGE=debian:12.11-slim

FROM ${DEBIAN_IMAGE}
ARG EDGETPU_COMPILER=16.0
SHELL ["/bin/sh", "-euc"]
ADD https://packages.cloud.google.com/apt/doc/apt-key.gpg /tmp/key
# The key counts for this repository only (signed-by). apt tells its two forms by the name's ending, and the
# server has served both.
# ca-certificates is not pinned: the newest is the right one.
# hadolint ignore=DL3008
RUN key=/usr/share/keyrings/coral-edgetpu.gpg; \
    if grep -q 'BEGIN PGP' /tmp/key; then key=${key%.gpg}.asc; fi; \
    install -m 644 /tmp/key "$key"; rm /tmp/key; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates; \
    echo "deb [arch=amd64 signed-by=$key] https://packages.cloud.google.com/apt coral-edgetpu-stable main" \
        >/etc/apt/sources.list.d/coral-edgetpu.list; \
    apt-get update; \
    apt-get install -y --no-install-recommends "edgetpu-compiler=$EDGETPU_COMPILER"; \
    rm -rf /var/lib/apt/lists/*; \
    useradd --create-home --uid 1000 edgekit
USER 1000
WORKDIR /work
HEALTHCHECK NONE
ENTRYPOINT ["edgetpu_compiler"]
CMD ["--help"]
