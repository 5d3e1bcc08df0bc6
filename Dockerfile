# The archiver as a container: no compiler, no package cache, no root, nothing written outside its volume. See docs/container.md.
# CI should pin the base image by digest: --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Wheels alone, each with a hash from a lock: nothing unlocked is fetched, nothing fetched is run to be built.
COPY locks/build.txt locks/runtime.txt locks/
RUN python -m pip install --require-hashes --only-binary=:all: -r locks/build.txt \
 && python -m venv --without-pip /opt/archiver \
 && python -m pip --python /opt/archiver/bin/python install --no-compile --require-hashes --only-binary=:all: -r locks/runtime.txt
COPY pyproject.toml README.md LICENSE config.example.toml ./
COPY migrations/ migrations/
COPY archiver/ archiver/
# Bytecode is written here, since nothing can be at run time; "unchecked" because a later stage may change the files' times.
RUN python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/archiver/bin/python install --no-compile --no-index --no-deps dist/*.whl \
 && /opt/archiver/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/archiver/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kore-archiver" \
      org.opencontainers.image.description="Archives call recordings of the Kore.ai platform, completely, unaltered and accounted for" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The base image carries the standard library without bytecode: every start, and so every health check, would compile it anew.
# A new named volume takes the owner and mode of the folder that it is mounted on: that is why /var/lib/archiver is made here.
# It is no VOLUME: an anonymous one would vanish with `docker run --rm`. Without a mount, --read-only refuses to start instead.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(site-packages|test|tests)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && groupadd --gid 10001 archiver \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin archiver \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/archiver \
 && install -d -m 0755 /etc/archiver
COPY --from=builder /opt/archiver /opt/archiver
ENV PATH=/opt/archiver/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# A configuration file mounted as /etc/archiver/archiver.toml is found, as it lies in the working directory.
WORKDIR /etc/archiver
USER 10001:10001
# The archiver is process 1: it handles SIGTERM itself and has no children, so there is no need of an init to forward and reap.
STOPSIGNAL SIGTERM
# Asks the database whether this container's worker still holds its lease, which it renews from the loop that does the work.
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 CMD ["archiver", "healthcheck"]
ENTRYPOINT ["archiver"]
CMD ["worker"]
