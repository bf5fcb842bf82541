// Package api is what people and programs may ask of the server, whatever the door: the
// operations, the forms of their requests and answers, and the HTTP statuses of errors.
//
// Start reading at [Operator], which does what is asked for, or at [ParseSubmission], the
// form of the most frequent request.
package api
