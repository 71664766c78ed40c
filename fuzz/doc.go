// Package fuzz tries to make the log break its promises: it cuts the power at every operation, kills processes that
// write, and judges what is left with one oracle. It has tests only; see CONTRIBUTING.md for how to run it longer and
// how to replay a seed.
package fuzz
