package status

const crashEnv = "JOBSTREAM_STATUS_CRASH_DIR"

func crashChild(string) {}
