package jobs

import (
	"maps"
	"slices"
	"strconv"
)

// Counts are numbers of jobs by status, and by type and status. The zero value
// counts nothing.
type Counts struct {
	Total    int
	Statuses [NumStatus]int
	Types    map[string][NumStatus]int // the types that have jobs
}

// Add adds n jobs of a type and a status. n = 0 leaves no trace.
func (c *Counts) Add(typ string, status Status, n int) {
	if n == 0 {
		return
	}
	if c.Types == nil {
		c.Types = make(map[string][NumStatus]int)
	}
	c.Total += n
	c.Statuses[status] += n
	t := c.Types[typ]
	t[status] += n
	c.Types[typ] = t
}

// AppendJSON appends the answer of GET /jobs/counts:
//
//	{"total":3,"scheduled":0,"pending":1,…,"failed":2,"cancelled":0,
//	 "types":{"email":{"total":3,"scheduled":0,…}}}
//
// Every status is there. The types are those that have jobs, sorted by name.
func (c *Counts) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	b = appendStatuses(b, c.Total, &c.Statuses)
	b = append(b, `,"types":{`...)
	for i, name := range slices.Sorted(maps.Keys(c.Types)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, name)
		b = append(b, ':', '{')
		counts, total := c.Types[name], 0
		for _, n := range counts {
			total += n
		}
		b = appendStatuses(b, total, &counts)
		b = append(b, '}')
	}
	return append(b, '}', '}')
}

func appendStatuses(b []byte, total int, counts *[NumStatus]int) []byte {
	b = append(b, `"total":`...)
	b = strconv.AppendInt(b, int64(total), 10)
	for st := Scheduled; int(st) < NumStatus; st++ {
		b = append(b, ',')
		b = AppendString(b, st.String())
		b = append(b, ':')
		b = strconv.AppendInt(b, int64(counts[st]), 10)
	}
	return b
}
