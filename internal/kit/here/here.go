// Package here says where this program runs, in the words of errors, messages and reports. What works with the host's
// name, and does not just tell it, asks the system itself and deals with its having none.
package here

import "os"

// Host is the name of this host, or "this host" where the system does not say.
func Host() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "this host"
	}
	return name
}
