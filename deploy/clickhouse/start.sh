#!/bin/bash
# Gives ClickHouse the hashes of the passwords that stand in files, and starts what is named by the arguments.
set -euo pipefail
secrets=${SECRETS:-/run/secrets}
hash_of() { printf %s "$(cat "$secrets/$1")" | sha256sum | cut -d ' ' -f 1; }
WRITER_SHA256=$(hash_of clickhouse_password)
READER_SHA256=$(hash_of clickhouse_read_password)
export WRITER_SHA256 READER_SHA256
exec "$@"
