package config

import "reflect"

// NeedsRestart lists the keys that differ in next and that a server cannot exchange while
// it runs, in the order of the shipped file: all but the jobs section and log.level.
func (c *Config) NeedsRestart(next *Config) (keys []string) {
	theirs := next.keys(nil)
	for i, k := range c.keys(nil) {
		var differs bool
		if k.Path == schedulesKey {
			differs = !reflect.DeepEqual(c.Schedules, next.Schedules)
		} else {
			differs = !reflect.DeepEqual(k.Get(), theirs[i].Get())
		}
		if differs && k.Path != levelKey {
			keys = append(keys, k.Path)
		}
	}
	return keys
}
