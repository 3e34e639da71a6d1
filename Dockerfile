# The worker: docker build -t vectorizer . ; extras as in pip: --build-arg EXTRAS=[minilm]
# BASE is any image with Python 3.10 or newer and its venv at /usr or /usr/local, on glibc.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vectorizer vectorizer
COPY sql sql
RUN python3 -m venv /opt/vectorizer \
 && /opt/vectorizer/bin/pip install --no-cache-dir --no-compile ".${EXTRAS}" \
 && /opt/vectorizer/bin/pip uninstall --quiet --yes pip setuptools \
 && find /opt/vectorizer -depth -type d \( -name tests -o -name __pycache__ \) -path '*/site-packages/*' \
      ! -path '*/vectorizer/*' -exec rm -rf {} + \
 # Bytecode of what a worker imports, and of nothing else: the root is read-only later.
 && /opt/vectorizer/bin/python -c 'import openai, vectorizer.cli, vectorizer.embedders.openai'

# Nothing but Python, the libraries it needs, and the worker: no shell, no package manager.
FROM build AS root
COPY deploy/minimal_root.sh /
RUN sh /minimal_root.sh /root-of-image

FROM scratch
LABEL org.opencontainers.image.title="vectorizer" \
      org.opencontainers.image.description="Keeps embeddings in step with PostgreSQL tables" \
      org.opencontainers.image.licenses="PostgreSQL"
COPY --from=root /root-of-image /
ENV PATH=/opt/vectorizer/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TZ=UTC \
    VECTORIZER_METRICS_HOST=0.0.0.0 \
    VECTORIZER_METRICS_PORT=9464 \
    VECTORIZER_LOG_FORMAT=json
# Nobody's: by number, so that Kubernetes can tell that it is not root. Nothing is written anywhere.
USER 65532:65532
WORKDIR /
EXPOSE 9464
# Of the worker only; other commands end by themselves.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s \
  CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"VECTORIZER_METRICS_PORT\"]}/healthz', timeout=4)"]
ENTRYPOINT ["vectorizer"]
CMD ["worker"]
