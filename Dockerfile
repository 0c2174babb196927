# One image for all Python services: each is this image with another command (docker-compose.yml).
# Any base with Python 3.10 or newer and its venv module will do.
ARG BASE_IMAGE=python:3.11.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
# An index of your own is given as a build secret or argument of pip's: PIP_INDEX_URL, PIP_TRUSTED_HOST, PIP_CERT.
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/retention
RUN python3 -m venv venv
COPY requirements.lock ./
# The engine and the process manager of `retention up` are a laptop's: a deployed stack has a ClickHouse server
# and its own supervisor, and the image is smaller by some hundred megabytes.
RUN grep -vE '^(chdb-core|supervisor)==' requirements.lock > deployed.lock \
    && venv/bin/pip install --quiet --requirement deployed.lock
COPY pyproject.toml README.md LICENSE dagster.yaml ./
COPY producer producer
COPY retention_platform retention_platform
COPY dbt_project dbt_project
COPY deploy/dagster deploy/dagster
# Settings and dbt find the project beside the package, so it is installed where it lies. The manifest, which no
# service may write later, and the page of documentation are made here. Dagster's configuration is the laptop's
# with Postgres added. What built all this stays behind.
RUN venv/bin/pip install --quiet --no-deps --editable . \
    && venv/bin/retention docs --output site/index.html \
    && mkdir dagster && cat dagster.yaml deploy/dagster/postgres.yaml > dagster/dagster.yaml \
    && cp deploy/dagster/workspace.yaml dagster/workspace.yaml \
    && venv/bin/python -m compileall -q retention_platform producer \
    && venv/bin/pip uninstall --quiet --yes pip setuptools \
    && rm -rf requirements.lock deployed.lock deploy dagster.yaml

FROM ${BASE_IMAGE}
# The state folder: reports, the logs of Dagster's runs, what dbt compiled. Everything else is read-only.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin retention \
    && mkdir -p /var/lib/retention && chown retention:retention /var/lib/retention
COPY --from=build /opt/retention /opt/retention
ENV PATH=/opt/retention/venv/bin:$PATH \
    RETENTION_HOME=/var/lib/retention \
    DAGSTER_HOME=/opt/retention/dagster \
    DAGSTER_STATE=/var/lib/retention/dagster \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DAGSTER_DISABLE_TELEMETRY=1 \
    DBT_SEND_ANONYMOUS_USAGE_STATS=false \
    DO_NOT_TRACK=1
WORKDIR /var/lib/retention
VOLUME /var/lib/retention
USER 10001:10001
CMD ["retention", "--help"]
