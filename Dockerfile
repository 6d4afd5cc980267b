# syntax=docker/dockerfile:1
# splatfix on a laptop without a GPU; the image of a cluster's nodes is cluster/Dockerfile.
#   docker build --tag splatfix .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" splatfix loop photos/ --out runs/mine
# The page of a viewer: add --publish 127.0.0.1:8080:8080, and --host 0.0.0.0 to view.
FROM python:3.12-slim-bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

WORKDIR /opt/splatfix
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
# torch alone first: this layer is large. uv takes the build for CPUs; pip keeps it
RUN pip install --no-cache-dir --constraint constraints.txt uv \
    && uv pip install --system --no-cache --no-deps --constraint constraints.txt --torch-backend cpu torch torchvision
# Further extras: docker build --build-arg EXTRAS=viewer,heic,train .
ARG EXTRAS=viewer,heic
COPY splatfix splatfix
COPY jobs jobs
COPY configs configs
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
    && rm -rf build ./*.egg-info splatfix \
    && useradd --create-home --uid 1000 splatfix \
    && mkdir -p /data /cache/numba /cache/matplotlib \
    && chown -R splatfix:splatfix /data \
    && chmod -R 1777 /cache

# Compiled kernels and settings of matplotlib, for any user: docker run --user
ENV NUMBA_CACHE_DIR=/cache/numba \
    MPLCONFIGDIR=/cache/matplotlib \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /data
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["splatfix"]
CMD ["--help"]
