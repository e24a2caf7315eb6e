#!/bin/sh
# Sends $1 blocks of 128 KiB over loopback TCP, from one iperf3 to another.
set -e
port=$((20000 + $$ % 20000))
iperf3 --server --one-off --port "$port" >/dev/null 2>&1 &
server=$!
until iperf3 --client 127.0.0.1 --port "$port" --blockcount "$1" >/dev/null 2>&1; do
	kill -0 "$server"  # it listens in a moment, or it has failed
	sleep 0.02
done
wait "$server"
