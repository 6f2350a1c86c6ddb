// Package lint holds the rules of the house that a compiler does not know, as tests over the module's own source: which
// package may import which, what pure packages may not touch, what is called by what instead, and what no file says.
//
// Each failure says the rule and what to do instead. An exception is a line in a table here, with its reason.
package lint
