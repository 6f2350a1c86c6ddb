#!/usr/bin/env bash
# Runs a command with a container engine that has images.
#
#   with.sh DIR [SDK=TAR=NAME ...] -- COMMAND ...
#
# The engine is DOCKER_HOST's where that is set; otherwise engine.sh starts one in DIR, and ends it afterwards unless it
# ran before.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
dir=${1:?with.sh DIR [SDK=TAR=NAME ...] -- COMMAND ...}
shift
if [ -z "${DOCKER_HOST:-}" ]; then
  started=1
  "$here/engine.sh" running "$dir" && started=
  setting=$("$here/engine.sh" up "$dir")
  export "${setting?}"
  if [ -n "$started" ]; then trap '"$here/engine.sh" down "$dir"' EXIT; fi
fi
while [ "$1" != -- ]; do
  IFS='=' read -r sdk tar name <<<"$1"
  "$here/images.sh" import "$sdk" "$tar" "$name"
  shift
done
shift
"$@"
