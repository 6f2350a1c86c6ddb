package local

import (
	"errors"

	"trestle/internal/fnapi"
)

// describe is what a person reads of a failed job.
func (r *run) describe(err error) string {
	var user *fnapi.HarnessError
	if errors.As(err, &user) {
		return user.Text
	}
	return err.Error()
}
