# The pipeline in one image: jobs of Prefect's workers, the worker and the server of
# deployments/compose.yaml, and runs by hand (`docker run IMAGE --help`).
# Build: docker build --build-arg VERSION=0.1.0 \
#            --build-arg REVISION=$(git describe --always --dirty) --tag cxrmodel:0.1.0 .
# The torch wheel that pip finds decides between CPU and CUDA; the rest is the same.

FROM python:3.11-slim AS packages
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=dicom,pipeline
RUN python -m venv /opt/venv
WORKDIR /build
# No code yet: this installs the locked packages and the project's own metadata, and stays cached
# until the lock changes. The code is found by PYTHONPATH below.
COPY pyproject.toml constraints.txt ./
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt ".[${EXTRAS}]" \
    && /opt/venv/bin/pip uninstall --yes --quiet pip

FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --home-dir /tmp --no-create-home --shell /usr/sbin/nologin cxr \
    && install --directory --owner 10001 --group 10001 /app/outputs
COPY --from=packages /opt/venv /opt/venv
# /tmp and /app/outputs are all that is ever written, so the root may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    PREFECT_HOME=/tmp/prefect \
    MPLCONFIGDIR=/tmp/matplotlib \
    DO_NOT_TRACK=1
WORKDIR /app
COPY deployments/entrypoint.sh /usr/local/bin/entrypoint
COPY configs configs
COPY cxrmodel cxrmodel
COPY tasks tasks
COPY flows flows
COPY deployments deployments
# An image whose entry does not start is not made; what that wrote belongs to root and goes.
RUN entrypoint --help >/dev/null && find /tmp -mindepth 1 -delete
ARG VERSION=unknown
ARG REVISION=unknown
ENV CXRMODEL_REVISION=$REVISION
LABEL org.opencontainers.image.title="cxrmodel" \
      org.opencontainers.image.description="Convolutional VAE on chest X-rays, as a Prefect pipeline" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION
USER 10001:10001
# No HEALTHCHECK: a job lives exactly as long as it works, and a dead one is found by its missing
# heartbeats. Long-lived services have theirs in deployments/compose.yaml.
ENTRYPOINT ["entrypoint"]
