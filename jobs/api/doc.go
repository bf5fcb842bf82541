// Package api is all that people and programs may ask of the server, whatever the door:
// the operations, the forms of their requests and answers, and the HTTP statuses of
// errors.
//
// Where to start: operations.go lists all [Operations]. A door hands an operation a
// [Request] and sends its [Answer]. The functions that read requests and do them are
// in do_….go, by subject; they use the forms in the files beside them, of which
// [ParseSubmission] is the most frequent. They work on a [Backend]; [Operator] is the
// part of it that changes jobs by hand.
package api
