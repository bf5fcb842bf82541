// Package figures counts what jobs do: how many come, end and fail in a second, how long
// they wait and run, and what waits now. Start reading at [Digest].
package figures
