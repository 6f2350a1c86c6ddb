// Command trestle runs Apache Beam pipelines.
package main

import (
	"os"

	"trestle/internal/cli"
)

func main() { os.Exit(cli.Main()) }
