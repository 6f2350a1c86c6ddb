#!/usr/bin/env bash
# fuzz.sh TIME: runs each fuzz target of the module for TIME, one after another (go test takes one at a time).
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/log
time=${1:-5s}
ran=0
while IFS=: read -r file target; do
  package=./$(dirname "$file")
  # The seeds are run by go test already; the workers are few so that they do not starve one another.
  go test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 5s -parallel 2 >build/log/fuzz.log 2>&1 || {
    # Go takes a worker that is at an input when the time is over for one that failed; a failing input it writes down.
    if grep -qx ' *context deadline exceeded' build/log/fuzz.log && ! grep -q 'Failing input written' build/log/fuzz.log; then
      echo "fuzz: $target in $package: the time was over in the middle of an input"
      ran=$((ran + 1))
      continue
    fi
    cat build/log/fuzz.log >&2
    echo "fuzz: $target in $package failed; the input that did it is in $package/testdata/fuzz" >&2
    exit 1
  }
  echo "fuzz: $target in $package: $(grep -oE 'execs: [0-9]+' build/log/fuzz.log | tail -n 1 || echo 'its seeds only')"
  ran=$((ran + 1))
done < <(grep -rHoE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' internal cmd test | sed 's/func //' | sort)
echo "fuzz: $ran targets, $time each"
