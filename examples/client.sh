#!/usr/bin/env bash
# Strongroom with curl: a secret, a model up and down, and what an error looks like. Needs STRONGROOM_URL and
# STRONGROOM_API_KEY, and jq is not needed.
set -euo pipefail
URL=${STRONGROOM_URL:-http://127.0.0.1:8080}
HERE=$(mktemp -d)
trap 'rm -rf "$HERE"' EXIT

# The key in a file that only this user reads: arguments are seen by everybody on the machine.
(umask 077 && printf 'header = "X-API-Key: %s"\n' "$STRONGROOM_API_KEY" >"$HERE/key")
# --retry repeats 429 and 503 with growing waits, and heeds Retry-After; --max-time is a deadline.
call() { curl --silent --show-error --config "$HERE/key" --retry 4 --max-time 30 "$@"; }

call --fail "$URL/api/v1/caller"
echo
call --fail -X PUT "$URL/api/v1/secrets/example-curl/db" -H 'Content-Type: application/json' \
    --data '{"data": {"password": "hush"}, "allow_missing": true}'
echo
head -c 1000000 /dev/urandom >"$HERE/weights.bin"
FILE="$URL/api/v1/managers/default/models/example-curl/versions/v$(date +%s%N)/files/weights.bin"
call --fail --output "$HERE/stored.json" --upload-file "$HERE/weights.bin" "$FILE"
call --fail --output "$HERE/back.bin" "$FILE"
cmp "$HERE/weights.bin" "$HERE/back.bin" && echo "the same bytes came back"
call "$URL/api/v1/secrets/example-curl/none" --write-out '\n%{http_code}\n'
