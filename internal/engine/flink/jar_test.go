package flink

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Workers' programs are those that lie beside the server's own, and each is for the machine that its name says.
func TestBinaries(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the headers below are those of other machines than this one's")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	// An ELF header is all that is looked at: its machine is at byte 18, and it is told to have no sections.
	arm := append([]byte(nil), program[:64]...)
	arm[18] = 183
	for i := 40; i < 48; i++ { // where its sections begin
		arm[i] = 0
	}
	arm[56], arm[57], arm[60], arm[61], arm[62], arm[63] = 0, 0, 0, 0, 0, 0
	server, other := filepath.Join(dir, "trestle"), filepath.Join(dir, "trestle-linux-arm64")
	if err := os.WriteFile(server, program, 0o700); err != nil {
		t.Fatal(err)
	}
	platforms := func() string {
		found, err := binariesBeside(server)
		if err != nil {
			return err.Error()
		}
		var names []string
		for _, b := range found {
			names = append(names, b.platform)
		}
		return strings.Join(names, " ")
	}
	if got := platforms(); got != "linux-amd64" {
		t.Error(got)
	}
	if err := os.WriteFile(other, program, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := platforms(); !strings.Contains(got, "is a program for EM_X86_64, and its name says linux-arm64") {
		t.Error(got)
	}
	if err := os.WriteFile(other, arm, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := platforms(); got != "linux-amd64 linux-arm64" {
		t.Error(got)
	}
}
