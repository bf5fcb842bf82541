// Package form describes operations: the forms of their requests and answers. The doors do
// not read it. The descriptions of the API are made from it, see
// [jobstream/jobs/apidoc], and tests compare them with what is served.
//
// Start reading at [Doc]. The functions that make a [Schema] have the shape of those of
// jobs/strict, so that a description can stand beside the reader that it describes.
package form

import "jobstream/jobs"

// Doc describes an operation for its users.
type Doc struct {
	// Summary says what it does, in a few words that begin with a verb.
	Summary string
	// Text says more, in Markdown; "" = there is no more to say.
	Text string

	// Query are the parameters of its URL. Over NATS they are fields of the message.
	Query []Param
	// Headers are those of the request that mean something to this operation.
	Headers []Param
	// Body is the form of the request's body: a [Schema], a value of the Go type that it is
	// the JSON of, or a [Content]; nil = it has none. Over NATS the parameters of the path
	// and the query are fields beside it.
	Body any
	// Optional says that the body may be missing.
	Optional bool
	// Example is a body.
	Example string

	// Answer is the form of the answer with the status of the operation, like Body; nil =
	// it is empty.
	Answer any
	// Others are the forms of answers with other statuses.
	Others map[int]any
	// Address says that the answer has the header Location.
	Address bool
	// Codes are those of its errors, besides the ones that all operations have.
	Codes []jobs.ErrorKind
}

// Param is a parameter of a path or a query, or a header.
type Param struct {
	Name string
	Text string // says what it does
	Schema
	Repeats bool   // it may be given several times, each time with another value
	Example string // "" = none
}

// Problem is an answer that is an error, with one of these codes. It is for statuses that
// do not follow from the code.
type Problem []jobs.ErrorKind

// Content is a body that is not JSON: the content types that it may have.
type Content []string
