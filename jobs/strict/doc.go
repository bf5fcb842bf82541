// Package strict reads JSON that people and programs send. It takes nothing that two
// readers might understand in two ways, and says what is wrong with which field: all of
// it, each by its JSON pointer.
//
// Start reading at [Value]: [Read] makes the first one of a text that [Check] has passed,
// [Value.Object] walks over its fields. Below it, [Members] walks without a second parse
// and without judging, for readers of JSON that the server has written itself.
package strict
