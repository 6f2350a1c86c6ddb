package boot

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Java runs workers of the Java SDK.
type Java struct {
	// Command is the JVM's launcher. Empty: $JAVA_HOME's, or else java from the PATH.
	Command string
	// Classpath follows the staged jars: files, folders, or folder/* for all jars of a folder.
	Classpath []string
	// Heap is the limit of the JVM's heap as -Xmx takes it: 2g, 512m. Empty: half of the memory that the JVM sees, of
	// the container's if it runs in one; beside it live the server, its spill buffers and other harnesses.
	Heap string
	// Arguments are more for the JVM; a later one wins over ours.
	Arguments []string
}

const (
	javaWorker = "org.apache.beam.fn.harness.FnHarness"
	// jammName begins the name of the jar that measures objects' sizes. The SDK's caches need it as an agent.
	jammName = "jamm"
)

func (Java) install(_ context.Context, j *job) error {
	for _, f := range j.files {
		if f.Package != "" {
			return fmt.Errorf("the pipeline names the Maven artifact %s, which trestle boot does not resolve: stage the jar itself, or give it with --classpath", f.Package)
		}
	}
	return nil
}

func (v Java) command(_ context.Context, j *job) (*command, error) {
	launcher, err := v.launcher()
	if err != nil {
		return nil, err
	}
	extra, err := expandClasspath(v.Classpath)
	if err != nil {
		return nil, err
	}
	var classpath []string
	for _, f := range j.files {
		classpath = append(classpath, f.Path)
	}
	classpath = append(classpath, extra...)
	has, err := look(classpath)
	if err != nil {
		return nil, err
	}
	if !has.harness {
		return nil, fmt.Errorf("none of the class path's %d entries has the Beam Java harness (%s): give beam-sdks-java-harness, of the pipeline's Beam version, and what it needs with --classpath", len(classpath), javaWorker)
	}
	jar := filepath.Join(j.Dir, "boot-"+strings.Map(fileNameRune, j.ID)+".jar")
	if err := writePathingJar(jar, classpath); err != nil {
		return nil, err
	}
	return &command{
		path: launcher,
		args: append(v.arguments(j, has.jamm), "-jar", jar),
		env:  append(j.environment(), "HARNESS_ID="+j.ID),
	}, nil
}

func (v Java) launcher() (string, error) {
	path, why := v.Command, "--java"
	if path == "" {
		if home := os.Getenv("JAVA_HOME"); home != "" {
			path, why = filepath.Join(home, "bin", "java"), "$JAVA_HOME"
		} else {
			path, why = "java", "the PATH"
		}
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("no JVM at %s (from %s): %w: name one with --java", path, why, err)
	}
	return found, nil
}

// arguments are the JVM's, in the order in which the last of two wins.
func (v Java) arguments(j *job, jamm string) []string {
	options := j.info.GetPipelineOptions()
	heap := "-XX:MaxRAMPercentage=50"
	if v.Heap != "" {
		heap = "-Xmx" + v.Heap
	}
	args := []string{
		heap,
		"-XX:+UseParallelGC",             // for throughput; bundles do not mind pauses
		"-XX:-OmitStackTraceInFastThrow", // a user's exception has its stack also the thousandth time
	}
	if jamm != "" && !experiment(options, "disable_jamm_agent") {
		args = append(args, "-javaagent:"+jamm)
	}
	if option(options, "enable_heap_dumps", "enableHeapDumps").GetBoolValue() {
		dumps := filepath.Join(j.Dir, "heapdumps")
		args = append(args, "-XX:+HeapDumpOnOutOfMemoryError", "-Dbeam.fn.heap_dump_dir="+dumps, "-XX:HeapDumpPath="+filepath.Join(dumps, "heap_dump.hprof"))
	}
	classes := []string{"java.math.BigDecimal", "java.math.BigInteger", "java.net.URI", "java.net.URL", "java.io.File", "java.lang.Integer"}
	if v := option(options, "avro_serializable_classes", "avroSerializableClasses"); v.GetListValue() != nil {
		classes = texts(v)
	}
	if len(classes) > 0 {
		args = append(args, "-Dorg.apache.avro.SERIALIZABLE_CLASSES="+strings.Join(classes, ","))
	}
	for _, m := range texts(option(options, "jdk_add_open_modules", "jdkAddOpenModules")) {
		args = append(args, "--add-opens="+m)
	}
	for _, m := range texts(option(options, "jdk_add_root_modules", "jdkAddRootModules")) {
		args = append(args, "--add-modules="+m)
	}
	return append(args, v.Arguments...)
}

// expandClasspath makes absolute paths of the entries, with a slash at the end of a folder's, and of folder/* the
// folder's jars.
func expandClasspath(entries []string) ([]string, error) {
	var all []string
	var errs []error
	for _, entry := range entries {
		dir, wild := strings.CutSuffix(entry, "*")
		abs, err := filepath.Abs(dir)
		var info os.FileInfo
		if err == nil {
			info, err = os.Stat(abs)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("class path entry %q: %w", entry, err))
			continue
		}
		if !wild {
			if info.IsDir() {
				abs += "/"
			}
			all = append(all, abs)
			continue
		}
		jars, err := filepath.Glob(filepath.Join(abs, "*.[jJ][aA][rR]"))
		if err != nil {
			errs = append(errs, fmt.Errorf("class path entry %q: %w", entry, err))
		}
		slices.Sort(jars)
		all = append(all, jars...)
	}
	return all, errors.Join(errs...)
}

// findings are what boot wants to know of a class path.
type findings struct {
	harness bool
	jamm    string // the jar that is an agent
}

// look looks into the class path's entries. What is no zip file is passed over, as the JVM does.
func look(classpath []string) (findings, error) {
	var has findings
	harness := strings.ReplaceAll(javaWorker, ".", "/") + ".class"
	for _, entry := range classpath {
		if info, err := os.Stat(entry); err != nil {
			return has, fmt.Errorf("class path: %w", err)
		} else if info.IsDir() {
			if _, err := os.Stat(filepath.Join(entry, filepath.FromSlash(harness))); err == nil {
				has.harness = true
			}
			continue
		}
		named := has.jamm == "" && strings.HasPrefix(filepath.Base(entry), jammName)
		if has.harness && !named {
			continue
		}
		jar, err := zip.OpenReader(entry)
		if errors.Is(err, zip.ErrFormat) {
			continue
		} else if err != nil {
			return has, fmt.Errorf("class path entry %s: %w", entry, err)
		}
		for _, f := range jar.File {
			has.harness = has.harness || f.Name == harness
			if named && f.Name == manifestName && premain(f) {
				has.jamm = entry
			}
		}
		if err := jar.Close(); err != nil {
			return has, fmt.Errorf("class path entry %s: %w", entry, err)
		}
	}
	return has, nil
}

// premain says whether a manifest declares an agent.
func premain(f *zip.File) bool {
	r, err := f.Open()
	if err != nil {
		return false
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, 64<<10))
	return err == nil && strings.Contains(string(text), "Premain-Class:")
}
