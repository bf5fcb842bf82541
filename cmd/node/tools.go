package node

// Tools are the parts of a node that its handlers use. The handlers are made before these
// are there, because the tracker has to know their types. So the zero value goes to the
// handlers and to [Options]; it works as soon as jobs run.
type Tools struct {
	Tracker   Tracker
	Requester Requester
	Queue     Queue
}
