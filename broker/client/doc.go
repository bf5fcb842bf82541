// Package client is for Go programs beside a server: they submit jobs and wait for them,
// and do jobs with the handlers that a server would run itself.
//
// Start reading at [Client]. It talks to the NATS service of a server, so it needs neither
// a broker nor a tracker. A [jobs.Definition] takes it wherever it takes a node.
// [Client.Work] makes the process a worker, whose jobs come under leases ([jobs.Leases]);
// files go over REST.
package client
