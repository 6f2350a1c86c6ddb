package local

import (
	"errors"

	"trestle/internal/beam/failure"
	"trestle/internal/fnapi"
)

// describe is what a person reads of a failed job: the user's own exception first, where there is one.
func (r *run) describe(err error) string {
	var user *fnapi.HarnessError
	if !errors.As(err, &user) {
		return err.Error()
	}
	return failure.Parse(user.Text).Text(func(transform string) string {
		return r.job.Plan.Pipeline.GetComponents().GetTransforms()[transform].GetUniqueName()
	})
}
