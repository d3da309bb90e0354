# syntax=docker/dockerfile:1
# One image for every part: `serve auth|models|secrets`, `gateway`, and the command line. docs/deployment.md says how.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN pip install uv==0.13.8
WORKDIR /source
RUN python -m venv --without-pip /opt/strongroom
# What changes seldom comes first. Every package has its digest in the lock file.
COPY deploy/requirements.lock build-constraints.txt ./
RUN uv pip install --python /opt/strongroom/bin/python --build-constraints build-constraints.txt \
    --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY gateway gateway
COPY protos protos
COPY services services
COPY strongroom strongroom
RUN uv build --wheel --build-constraints build-constraints.txt --out-dir /wheels \
    && uv pip install --python /opt/strongroom/bin/python --no-deps /wheels/*.whl

FROM python:${PYTHON}
# Nobody signs in as this user, and nothing in the image is theirs: what runs cannot change what it runs.
RUN groupadd --system --gid 10001 strongroom \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/strongroom --shell /usr/sbin/nologin strongroom \
    && install -d -m 0700 -o 10001 -g 10001 /var/lib/strongroom
COPY --from=build /opt/strongroom /opt/strongroom
ENV PATH=/opt/strongroom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    STRONGROOM_DATA_DIR=/var/lib/strongroom
USER 10001:10001
WORKDIR /var/lib/strongroom
# Files of its own are here and, while it runs, in /tmp: mount both and the rest may be read-only.
VOLUME /var/lib/strongroom
STOPSIGNAL SIGTERM
ENTRYPOINT ["strongroom"]
CMD ["--help"]
