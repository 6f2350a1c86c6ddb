#!/usr/bin/env bash
# Makes FOLDER/kjv.txt: the King James Bible, 4.4 MB of public domain English, out of two Debian packages. They are
# unpacked below FOLDER and not installed; only a machine that has never listed its packages needs root.
set -euo pipefail
folder=$1
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "the text comes from the Debian package bible-kjv-text, and this machine has no apt-get or dpkg-deb:" \
    "put any English text in $folder/kjv.txt and run again" >&2
  exit 1
fi
rm -rf "$folder"
mkdir -p "$folder/packages"
cd "$folder/packages"
if ! apt-get download bible-kjv bible-kjv-text; then
  if [ "$(id -u)" != 0 ]; then
    echo "apt knows no package bible-kjv: run «apt-get update» as root and try again" >&2
    exit 1
  fi
  apt-get update
  apt-get download bible-kjv bible-kjv-text
fi
for package in ./*.deb; do dpkg-deb -x "$package" .; done
# The text is packed in a form of its own; the package's reader prints it whole when asked for its first to last verse.
./usr/bin/bible -p ./usr/lib/ -f -l80 gen1:1-rev22:21 >../kjv.tmp
if [ "$(wc -c <../kjv.tmp)" -lt 4000000 ]; then
  echo "the text is $(wc -c <../kjv.tmp) bytes, and not the whole book" >&2
  exit 1
fi
mv ../kjv.tmp ../kjv.txt
