package failure

import "regexp"

// addresses are how languages tell one object from another of its class: Python's and Go's 0x7f2a…, Java's Thing@1b2c3d4.
var addresses = regexp.MustCompile(`0x[0-9a-fA-F]{4,16}\b|\b@[0-9a-f]{1,8}\b`)

// Words is a failure's text without what is another each time that the same fails: the addresses of objects. Where two
// attempts have the same words, a third will.
func Words(text string) string { return addresses.ReplaceAllString(text, "…") }
