#!/usr/bin/env bash
# fuzz.sh TIME: runs every native fuzz target of the module in the current folder for TIME. What fails stays under testdata/fuzz.
set -euo pipefail

go=${GO:-go}
list=$("$go" test -list '^Fuzz' ./...)
echo "$list" | awk '/^Fuzz/ { f[++n] = $1 } /^ok/ { for (i = 1; i <= n; i++) print $2, f[i]; n = 0 }' |
	while read -r pkg target; do
		echo "fuzz $pkg $target for $1"
		out=$("$go" test "$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "$1" 2>&1) || { echo "$out"; exit 1; }
		echo "$out" | tail -n 1
	done
