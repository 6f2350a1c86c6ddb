#!/usr/bin/env bash
# Images of the SDKs' harnesses, made without any registry: Beam's own boot program and the SDK that is set up on this
# machine, with the libraries that they need. An image is a tar file, which is kept, and is imported by whichever engine
# needs it.
#
#   images.sh go TAR BINARY                 for Go pipelines; BINARY is one whose libraries they will need
#   images.sh python TAR VENV               the virtual environment, its interpreter, and all they need
#   images.sh java TAR JARS                 a Java runtime, and the harness's jars out of the folder
#   images.sh import go|python|java TAR NAME   into the engine of DOCKER_HOST, unless it has this very one under that name
#
# They need Go, tar and ldd; java also a JDK with jlink. Nothing is downloaded but Go modules.
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd -P)
beam=github.com/apache/beam/sdks/v2

boot() { # boot SDK FILE: Beam's container entry point, in Beam's own module, whose go.sum holds for it
  go -C "$repo" mod download $beam
  go build -C "$(go -C "$repo" list -m -f '{{.Dir}}' $beam)" -trimpath -ldflags '-s -w' -o "$2" "./$1/container"
}

skeleton() { # skeleton ROOT: what any program expects
  mkdir -p "$1"/{tmp,etc/ssl/certs,opt/apache/beam,usr/bin,usr/lib,usr/lib64,root}
  chmod 1777 "$1/tmp"
  for d in bin lib lib64; do ln -s usr/$d "$1/$d"; done
  # The Go SDK looks up the current user at start, and gives up without one.
  echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
  echo 'root:x:0:' >"$1/etc/group"
  if [ -r /etc/ssl/certs/ca-certificates.crt ]; then cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"; fi
  cp -L /bin/sh "$1/usr/bin/sh"
  libraries "$1" /bin/sh
}

libraries() { # libraries ROOT FILE...: copies what the files are linked with, out of the system's folders
  local root=$1
  shift
  # A static program has none, which ldd calls a failure.
  { ldd "$@" 2>/dev/null || true; } | awk '/=> \//{ print $3 } /^\t\//{ print $1 }' | sort -u |
    while read -r library; do
      case $library in
      /lib*/* | /usr/lib*/*) [ -e "$root$library" ] || cp -L --parents "$library" "$root" ;;
      esac
    done
}

finish() { # finish ROOT TAR ARGS...: writes the tar whole or not at all
  tar -c -f "$2.part" -C "$1" . "${@:3}"
  mv "$2.part" "$2"
}

make_go() { # TAR BINARY
  boot go "$root/opt/apache/beam/boot"
  libraries "$root" "$root/opt/apache/beam/boot" "$2"
  finish "$root" "$1"
}

make_python() { # TAR VENV
  local venv=$2 python base stdlib
  venv=$(cd "$2" && pwd -P)
  boot python "$root/opt/apache/beam/boot"
  libraries "$root" "$root/opt/apache/beam/boot"
  # Everything stays where it is on this machine, since a virtual environment names its interpreter by its path.
  python=$(realpath "$venv/bin/python")
  stdlib=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
  base=$("$venv/bin/python" -c 'import sys; print(sys.base_prefix)')
  find "$venv" "$stdlib" -name '*.so*' -type f -print0 | while read -r -d '' file; do libraries "$root" "$file"; done
  libraries "$root" "$python"
  local own=("$venv" "$stdlib") link=$venv/bin/python # none twice: tar would make it a link to itself
  while [ -L "$link" ]; do
    local target
    target=$(readlink "$link")
    case $target in /*) link=$target ;; *) link=$(dirname "$link")/$target ;; esac
    case $link in "$venv"/*) ;; *) own+=("$link") ;; esac
  done
  if compgen -G "$base/lib/libpython*" >/dev/null; then own+=("$base"/lib/libpython*); fi
  ln -s "$venv" "$root/opt/python"
  # The interpreter's own packages and tests are no part of the virtual environment.
  finish "$root" "$1" --exclude="${stdlib#/}/site-packages" --exclude="${stdlib#/}/dist-packages" --exclude="${stdlib#/}/test" \
    -C / "${own[@]#/}"
}

make_java() { # TAR JARS
  boot java "$root/opt/apache/beam/boot"
  jlink --add-modules ALL-MODULE-PATH --strip-debug --no-header-files --no-man-pages --output "$root/opt/java"
  libraries "$root" "$root/opt/apache/beam/boot" "$root"/opt/java/bin/java "$root"/opt/java/lib/*.so "$root"/opt/java/lib/*/*.so
  # By the names under which Beam's boot program looks for them.
  mkdir -p "$root/opt/apache/beam/jars"
  for jar in beam-sdks-java-harness slf4j-api slf4j-jdk14 jamm; do
    cp "$2/$jar"-[0-9]*.jar "$root/opt/apache/beam/jars/$jar.jar"
  done
  finish "$root" "$1"
}

import() { # SDK TAR NAME
  local file has
  file=$(stat -L -c %s-%Y "$2")
  has=$(docker image inspect --format '{{index .Config.Labels "trestle.test.tar"}}' "$3" 2>/dev/null) || true
  if [ "$has" = "$file" ]; then return; fi
  local changes=(--change "LABEL trestle.test.tar=$file" --change 'ENTRYPOINT ["/opt/apache/beam/boot"]' --change 'ENV LANG=C.UTF-8')
  case $1 in
  go) ;;
  # Without the variable, boot makes a virtual environment for each worker, which costs seconds.
  python) changes+=(--change 'ENV PATH=/opt/python/bin:/usr/bin' --change 'ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1') ;;
  java) changes+=(--change 'ENV PATH=/opt/java/bin:/usr/bin') ;;
  *) usage ;;
  esac
  docker import "${changes[@]}" "$2" "$3" >/dev/null
}

usage() {
  sed -n '6,9s/^# *//p' "$0" >&2
  exit 2
}

case ${1:-} in
import)
  [ $# = 4 ] || usage
  import "${@:2}"
  ;;
go | python | java)
  [ $# = 3 ] || usage
  mkdir -p "$(dirname "$2")"
  root=$(mktemp -d "$(cd "$(dirname "$2")" && pwd -P)/root-$1-XXXXXX")
  trap 'rm -rf "$root"' EXIT
  skeleton "$root"
  "make_$1" "${@:2}"
  ;;
*) usage ;;
esac
