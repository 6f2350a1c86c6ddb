package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// noContainerLeft looks for containers of the server that had the process id. They carry it in a label
// (docs/formats/container-labels.md).
func noContainerLeft(ctx context.Context, server int) error {
	out, err := exec.CommandContext(ctx, "docker", "ps", "--all", "--filter", "label=trestle.owner",
		"--format", `{{.Names}} {{.Status}} {{.Label "trestle.owner"}}`).Output()
	if err != nil {
		return fmt.Errorf("list the containers: %w", err)
	}
	var left []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, fmt.Sprintf(`"pid":%d,`, server)) {
			left = append(left, strings.TrimSpace(line))
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left:\n    %s", strings.Join(left, "\n    "))
	}
	return nil
}
