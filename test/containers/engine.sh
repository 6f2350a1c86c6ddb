#!/usr/bin/env bash
# A Docker engine of one's own, for tests: no system service, everything below one folder, no network bridge and no
# firewall rule, so that the host's network is left alone (containers get the host's). It needs root, and Debian's
# docker.io or another package with dockerd.
#
#   engine.sh up DIR        starts it unless it runs; prints DOCKER_HOST=unix://… to export
#   engine.sh running DIR   tells by its status whether it runs
#   engine.sh down DIR      ends it, its containers first; what it stored stays
#   engine.sh rm DIR        ends it and removes what it stored
#
# EXEC, if set, is put before dockerd, to start it in other namespaces: EXEC='ip netns exec host1'.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

usage() {
  echo "usage: engine.sh up|running|down|rm DIR" >&2
  exit 2
}
[ $# = 2 ] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd -P)
# A socket's path has 107 bytes at most, and containerd's is the longest of them.
run=$dir/run
if [ ${#run} -gt 70 ]; then run=/tmp/trestle-engine-$(printf %s "$dir" | cksum | cut -d' ' -f1); fi
host=unix://$run/docker.sock
pidfile=$dir/dockerd.pid

pid() { # the engine's process, if it runs
  local p
  p=$(cat "$pidfile" 2>/dev/null) || return 1
  [ -r "/proc/$p/cmdline" ] && tr '\0' '\n' <"/proc/$p/cmdline" | grep -qxF "$host" && echo "$p"
}

answers() { docker -H "$host" version >/dev/null 2>&1; }

up() {
  if ! pid >/dev/null; then
    for tool in docker dockerd; do
      command -v $tool >/dev/null || { echo "engine.sh: $tool is not on this machine: install Debian's docker.io (apt-get install docker.io)" >&2; exit 1; }
    done
    mkdir -p "$run"
    rm -f "$pidfile" "$run/docker.sock"
    # shellcheck disable=SC2086 # EXEC is words
    setsid ${EXEC:-} dockerd -H "$host" --data-root "$dir/root" --exec-root "$run/exec" --pidfile "$pidfile" \
      --iptables=false --ip6tables=false --ip-forward=false --bridge=none >"$dir/dockerd.log" 2>&1 9>&- &
    local started=$!
    for _ in $(seq 300); do
      answers && break
      kill -0 $started 2>/dev/null || break
      sleep 0.1
    done
  fi
  answers || { echo "engine.sh: dockerd does not answer; its last lines:" >&2; tail -n 20 "$dir/dockerd.log" >&2; exit 1; }
  echo "DOCKER_HOST=$host"
}

down() {
  local p
  if p=$(pid); then
    kill "$p"
    for _ in $(seq 300); do
      pid >/dev/null || break
      sleep 0.1
    done
    if pid >/dev/null; then
      echo "engine.sh: dockerd $p did not end within 30 s, and is killed" >&2
      kill -9 "$p"
    fi
  fi
  # Namespaces that it keeps, and what a killed engine left.
  awk -v d="$dir/" -v r="$run/" 'index($2, d) == 1 || index($2, r) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount
}

exec 9>"$dir/lock"
flock 9
case $1 in
up) up ;;
running) pid >/dev/null ;;
down) down ;;
rm)
  down
  rm -rf "$dir" "$run"
  ;;
*) usage ;;
esac
