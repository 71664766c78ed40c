# Prints the statement coverage of packages and fails below min percent. Input: the packages' import paths, then a
# coverage profile, in which a block appears once for each test binary.

FNR == NR { want[$1] = 1; order[++n] = $1; next }
/^mode:/ { next }
{
	file = $1
	sub(/:.*/, "", file)
	pkg = file
	sub(/\/[^\/]*$/, "", pkg)
	if (!(pkg in want)) next
	if (!($1 in statements)) total[pkg] += $2
	if ($3 > 0 && !($1 in hit)) { hit[$1] = 1; covered[pkg] += $2 }
	statements[$1] = $2
}
END {
	for (i = 1; i <= n; i++) {
		p = order[i]
		share = total[p] ? 100 * covered[p] / total[p] : 0
		low = share < min
		bad += low
		printf "%6.1f %%  %5d of %5d statements  %s%s\n", share, covered[p], total[p], p, low ? "   <-- below " min " %" : ""
	}
	exit bad > 0
}
