#!/usr/bin/env bash
# bench-compare.sh REF BENCH BENCHTIME ROUNDS [FLAGS]: runs the same benchmarks on this work tree and on commit REF, in
# turns, so that a machine whose speed drifts treats both alike, and compares them. The benchmarks are those of this
# work tree; if REF cannot build them, its own.
set -euo pipefail

ref=${1:-} bench=$2 time=$3 rounds=$4
shift 4
if [ -z "$ref" ]; then
	echo "usage: make bench-compare REF=commit [BENCH=regexp] [BENCHTIME=1s] [ROUNDS=6]" >&2
	exit 2
fi
commit=$(git rev-parse --verify --quiet "$ref^{commit}") || { echo "bench-compare: no commit $ref" >&2; exit 2; }
go=${GO:-go}
root=$PWD
tmp=$(mktemp -d)
old=$tmp/tree
trap 'git worktree remove --force "$old" 2>/dev/null; rm -rf "$tmp"' EXIT
git worktree add --quiet --detach "$old" "$commit"

"$go" test -c -o "$tmp/new.test" ./bench
if [ -d "$old/bench" ]; then cp -r "$old/bench" "$tmp/own"; fi
rm -rf "$old/bench"
cp -r "$root/bench" "$old/bench"
if ! (cd "$old" && "$go" test -c -o "$tmp/old.test" ./bench) 2>"$tmp/why"; then
	if [ ! -d "$tmp/own" ]; then
		echo "bench-compare: $ref has no benchmarks, and cannot build these:" >&2
		cat "$tmp/why" >&2
		exit 1
	fi
	echo "bench-compare: $ref cannot build these benchmarks; using its own" >&2
	rm -rf "$old/bench"
	cp -r "$tmp/own" "$old/bench"
	(cd "$old" && "$go" test -c -o "$tmp/old.test" ./bench)
fi
run() { # NAME FOLDER
	(cd "$2" && "$tmp/$1.test" -test.run '^$' -test.bench "$bench" -test.benchtime "$time" -test.timeout 2h "${@:3}") \
		>>"$tmp/$1.txt" || { tail -n 20 "$tmp/$1.txt" >&2; exit 1; }
}
for round in $(seq "$rounds"); do
	echo "round $round of $rounds" >&2
	run old "$old/bench" "$@"
	run new "$root/bench" "$@"
done
"$go" run "$BENCHSTAT" "old=$tmp/old.txt" "new=$tmp/new.txt"
