package pool

import "time"

// alarm calls a function at the earliest of the moments that were set since the last
// call. Its owner's lock guards it.
type alarm struct {
	timer *time.Timer
	at    time.Time
}

func (a *alarm) init(f func()) {
	a.timer = time.AfterFunc(time.Hour, f)
	a.timer.Stop()
}

func (a *alarm) set(at time.Time) {
	if a.at.IsZero() || at.Before(a.at) {
		a.at = at
		a.timer.Reset(time.Until(at))
	}
}

func (a *alarm) stop() { a.timer.Stop() }
