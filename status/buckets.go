package status

// The names in the file, which doc.go explains.
var (
	bucketMeta     = []byte("meta")
	bucketJobs     = []byte("jobs")
	bucketPayloads = []byte("payloads")
	bucketIDs      = []byte("ids")
	bucketMoved    = []byte("moved")
	bucketBits     = []byte("bits")
	bucketTimes    = []byte("times")
	bucketOutbox   = []byte("outbox")
	bucketCopies   = []byte("copies")
	bucketCopyAges = []byte("copyages")
	bucketEnds     = []byte("ends") // of earlier versions
	bucketEnded    = []byte("ended")
	bucketAliases  = []byte("aliases")
	bucketDue      = []byte("due")
	bucketLimits   = []byte("limits")
	bucketUnique   = []byte("unique")
	bucketSlots    = []byte("slots")
	bucketHeld     = []byte("held")
	bucketTokens   = []byte("tokens")
	bucketTokenAge = []byte("tokenage")
	bucketBatches  = []byte("batches")
	bucketTypes    = []byte("types")

	bucketInputs    = []byte("inputs")
	bucketInputJobs = []byte("inputjobs")
	bucketInputAge  = []byte("inputage")

	bucketSchedules = []byte("schedules")
	bucketDisabled  = []byte("disabled")

	bucketScheduleRuns = []byte("scheduleruns")

	bucketFailures    = []byte("failures")
	bucketFailureAges = []byte("failureages")

	bucketAudit    = []byte("audit")
	bucketRefusals = []byte("refusals")

	// allBuckets have numbers in entries of the log, see entry.go: new ones come last.
	allBuckets = [][]byte{
		bucketMeta, bucketJobs, bucketPayloads, bucketIDs, bucketMoved, bucketBits, bucketTimes, bucketOutbox,
		bucketCopies, bucketCopyAges, bucketAliases, bucketDue, bucketLimits, bucketUnique, bucketSlots, bucketHeld, bucketTokens, bucketTokenAge,
		bucketBatches, bucketTypes, bucketSchedules, bucketInputs, bucketInputJobs, bucketInputAge, bucketDisabled, bucketEnded,
		bucketFailures, bucketFailureAges, bucketAudit, bucketRefusals,
		bucketScheduleRuns,
	}

	keyFormat    = []byte("format")
	keyLayout    = []byte("layout") // see format.go
	keyWriter    = []byte("writer") // the version that has opened it last
	keyPositions = []byte("positions")
	keyNumber    = []byte("number") // of the last commit that changed something
	keyClean     = []byte("clean")
	keyNode      = []byte("node")
	keyBoot      = []byte("boot")
	keyLeases    = []byte("leases")  // the key that signs tokens of leases
	keyRemoved   = []byte("removed") // names of nodes that were removed from the cluster
	keyPlace     = []byte("place")   // in the log of several trackers, see sealed.go
	keyRebuild   = []byte("rebuild") // there from the file's making to the end of its rebuild
	keyIndexes   = []byte("indexes") // the version of the indexes, and while they are made anew the next key
	prefixType   = "type/"

	// ownKeys are those in meta that each of several trackers has for itself.
	// The first ones, nodeKeys, are about the node; the others about its file.
	ownKeys  = [][]byte{keyClean, keyNode, keyBoot, keyFormat, keyLayout, keyWriter, keyPlace}
	nodeKeys = ownKeys[:3]
)
