// Package strict reads JSON that people and programs send. It accepts nothing that two
// readers might understand in two ways. It finds all mistakes of a text, and names each by
// its JSON pointer.
//
// Start reading at [Value]. [Read] makes the first one of a text that [Check] accepts, and
// [Value.Object] walks over its fields. [Members] is the walk below it: it does not judge,
// and so serves readers of JSON that the server has written itself.
package strict
