package flink

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestDefaultParallelism(t *testing.T) {
	for _, test := range []struct {
		config string
		want   int
		err    string
	}{
		{`[{"key": "rest.port", "value": "8081"}, {"key": "parallelism.default", "value": "4"}]`, 4, ""},
		{`[{"key": "rest.port", "value": "8081"}]`, 0, ""},
		{`[{"key": "parallelism.default", "value": "many"}]`, 0, `parallelism.default "many"`},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/jobmanager/config" {
				w.WriteHeader(http.StatusNotFound)
			}
			fmt.Fprint(w, test.config)
		}))
		r, err := newREST(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.defaultParallelism(t.Context())
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %d, error %v", test.config, got, err)
		}
		server.Close()
	}
}
