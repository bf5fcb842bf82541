//go:build race

package main

// raced says that the race detector is part of this program, which makes memory larger.
const raced = true
