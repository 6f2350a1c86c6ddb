package harness

import (
	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
)

// Logged is a harness's log entry as a text, with its trace. tell says that it is for the job's messages, and with which
// importance: warnings and worse are. An error that a harness logs is a warning of the job's, which may go on.
func Logged(e *fnpb.LogEntry) (text string, importance jobpb.JobMessage_MessageImportance, tell bool) {
	text = e.GetMessage()
	if e.GetTrace() != "" {
		text += "\n" + e.GetTrace()
	}
	switch severity := e.GetSeverity(); {
	case severity >= fnpb.LogEntry_Severity_ERROR:
		return text, jobpb.JobMessage_JOB_MESSAGE_WARNING, true
	case severity >= fnpb.LogEntry_Severity_WARN:
		return text, jobpb.JobMessage_JOB_MESSAGE_DETAILED, true
	}
	return text, 0, false
}
