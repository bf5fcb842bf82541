package config

import "reflect"

// NeedsRestart lists the keys outside of the jobs section that differ in next, in the
// order of the shipped file. A server cannot exchange them while it runs.
func (c *Config) NeedsRestart(next *Config) (keys []string) {
	theirs := next.keys(nil)
	for i, k := range c.keys(nil) {
		var differs bool
		if k.Path == schedulesKey {
			differs = !reflect.DeepEqual(c.Schedules, next.Schedules)
		} else {
			differs = !reflect.DeepEqual(k.Get(), theirs[i].Get())
		}
		if differs {
			keys = append(keys, k.Path)
		}
	}
	return keys
}
