# The agent on Debian's Python and BCC.  By default it runs without privileges and serves mock data, marked as such;
# docs/operations.md ("In a container") has the command that gives it the rights to measure.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS runtime
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-bpfcc \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*

FROM runtime AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv
COPY . /src
RUN PREFIX=/usr/local /src/scripts/install install

FROM runtime
LABEL org.opencontainers.image.title="chainbench-agent" \
      org.opencontainers.image.description="Kernel-level evidence for benchmarks" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-only"
COPY --from=build /usr/local/lib/chainbench-agent /usr/local/lib/chainbench-agent
COPY scripts/healthy.py /usr/local/lib/chainbench-agent/healthy.py
RUN ln -s ../lib/chainbench-agent/bin/chainbench-agent /usr/local/bin/ \
    && install -d -o 65532 -g 0 -m 0770 /var/cache/chainbench-agent /var/lib/chainbench-agent
# The directories belong to root's group, because root without capabilities may write only where its group may.
ENV CHAINBENCH_PORT=9090 \
    CHAINBENCH_HEADER_CACHE=/var/cache/chainbench-agent \
    CHAINBENCH_STATE_DIR=/var/lib/chainbench-agent
# The agent listens on 127.0.0.1, which is the host's with `--network host`.  Any other address (CHAINBENCH_HOST) requires
# a token: mount a file with one, and name it in CHAINBENCH_TOKEN_FILE.
EXPOSE 9090
USER 65532:65532
# Compiling takes seconds, and minutes on an emulated machine; failed checks during the start period do not count.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["/usr/local/lib/chainbench-agent/bin/python", "-P", "/usr/local/lib/chainbench-agent/healthy.py"]
ENTRYPOINT ["/usr/local/bin/chainbench-agent"]
CMD ["serve"]
