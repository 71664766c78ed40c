#!/usr/bin/env bash
# fuzz.sh BUDGET: runs every native fuzz target of the module in the current folder for BUDGET: a number of executions such as 3000x, or a
# time in whole s, m or h such as 10m. What fails stays under testdata/fuzz.
#
# A time is spent in rounds of so many executions each, the last of which may end later. The go command's own limit on time is not used: when
# it is over, the execution that is cut off by it may be reported as a failure, "context deadline exceeded" (go.dev/issue/75804; go 1.26 has
# it), and does so on a busy machine. Interesting inputs are made smaller for a few executions only: by default each gets up to a minute,
# in which no new ones are tried.
set -euo pipefail

go=${GO:-go}
rounds= # of a time: executions of the first round
case $1 in
*[!0-9]*[!0-9]* | [!0-9]*) bad=1 ;;
*x) bad= ;;
*s) bad= rounds=500 seconds=${1%s} ;;
*m) bad= rounds=500 seconds=$((${1%m} * 60)) ;;
*h) bad= rounds=500 seconds=$((${1%h} * 3600)) ;;
*) bad=1 ;;
esac
if [ -n "$bad" ]; then
	echo "fuzz.sh: $1: want a number of executions such as 3000x, or a time such as 10m" >&2
	exit 2
fi

round() { # PACKAGE TARGET EXECUTIONS; leaves in out what was printed, and in took how long it was at it, in ms
	out=$("$go" test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$3" -fuzzminimizetime 20x 2>&1) || { echo "$out"; exit 1; }
	took=$(echo "$out" | awk '$1 == "ok" { print int($3 * 1000) + 1 }')
}

fuzz() { # PACKAGE TARGET
	if [ -z "$rounds" ]; then
		round "$1" "$2" "$budget"
		return
	fi
	local n=$rounds total=0 left=$((seconds * 1000))
	while :; do
		round "$1" "$2" "${n}x"
		total=$((total + n)) left=$((left - took))
		if [ "$left" -le 0 ]; then
			out+=" in the last round; $total executions"
			return
		fi
		n=$((left / took < 10 ? n * left / took + 100 : n * 10))
	done
}

budget=$1
list=$("$go" test -list '^Fuzz' ./...)
echo "$list" | awk '/^Fuzz/ { f[++n] = $1 } /^ok/ { for (i = 1; i <= n; i++) print $2, f[i]; n = 0 }' |
	while read -r pkg target; do
		echo "fuzz $pkg $target for $budget"
		fuzz "$pkg" "$target"
		echo "$out" | tail -n 1
	done
