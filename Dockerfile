# syntax=docker/dockerfile:1
# tl in a container: docker build --tag automl-tl .                              CPU, 1 GB
#                    docker build --tag automl-tl --build-arg TORCH=cu128 .      CUDA, 6 GB; run with --gpus all
#                    docker build --tag automl-tl-serve --target serve .         the server: see docs/serve.md
# Linted by hadolint in `make check`; not built there, because that takes a container builder.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
# "cpu", or a CUDA build such as "cu128": what `uv pip install --torch-backend` knows.
ARG TORCH=cpu
ARG EXTRAS=onnx,heic,serve
COPY . /source
RUN pip install --no-cache-dir uv==0.13.9 \
 && uv venv /opt/automl-tl \
 && uv pip install --no-cache --python /opt/automl-tl --torch-backend "${TORCH}" "/source[${EXTRAS}]"

FROM python:${PYTHON}-slim AS base
RUN useradd --create-home --uid 1000 tl \
 && install --directory --owner tl /data
COPY --from=build /opt/automl-tl /opt/automl-tl
ENV PATH=/opt/automl-tl/bin:${PATH} TL_HOME=/data
USER 1000
WORKDIR /home/tl
# Registry and cache. Mount images beside it: docker run --volume models:/data --volume ./flowers:/flowers:ro ...
VOLUME /data
ENTRYPOINT ["tl"]

FROM base AS serve
EXPOSE 8000
HEALTHCHECK --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready')"]
ENTRYPOINT ["tl", "serve", "--host", "0.0.0.0"]

FROM base
CMD ["--help"]
