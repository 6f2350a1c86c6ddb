// Package exit is how a subcommand ends the program with a status of its choice.
package exit

import "strconv"

// Code is an error that says nothing: what there is to say has been said.
type Code struct{ Status int }

func (c *Code) Error() string { return "exit status " + strconv.Itoa(c.Status) }
