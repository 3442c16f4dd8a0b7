# syntax=docker/dockerfile:1
# tl in a container: docker build --tag automl-tl .                              CPU, 1 GB
#                    docker build --tag automl-tl --build-arg TORCH=cu128 .      CUDA, 6 GB; run with --gpus all
# Linted by hadolint in `make check`; not built there, because that takes a container builder.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
# "cpu", or a CUDA build such as "cu128": what `uv pip install --torch-backend` knows.
ARG TORCH=cpu
ARG EXTRAS=onnx,heic
COPY . /source
RUN pip install --no-cache-dir uv==0.13.9 \
 && uv venv /opt/automl-tl \
 && uv pip install --no-cache --python /opt/automl-tl --torch-backend "${TORCH}" "/source[${EXTRAS}]"

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 tl \
 && install --directory --owner tl /data
COPY --from=build /opt/automl-tl /opt/automl-tl
ENV PATH=/opt/automl-tl/bin:${PATH} TL_HOME=/data
USER 1000
WORKDIR /home/tl
# Registry and cache. Mount images beside it: docker run --volume models:/data --volume ./flowers:/flowers:ro ...
VOLUME /data
ENTRYPOINT ["tl"]
CMD ["--help"]
