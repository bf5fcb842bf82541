// Package strict reads JSON that people and programs send: it takes nothing that two
// readers might understand in two ways, and says what is wrong with every field.
//
// Start reading at [EachMember]: it walks over an object without a second parse, and the
// values that it hands out are parts of the body.
package strict
