package boot

import (
	"archive/zip"
	"bytes"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/google/renameio/v2"
)

const manifestName = "META-INF/MANIFEST.MF"

// opened are the packages that the SDK, and what serialises for it, reach into by reflection. A JVM before 9 does not
// know the attribute, and one that lacks a package passes over it: no version has to be asked for.
var opened = []string{
	"java.base/java.io", "java.base/java.lang", "java.base/java.lang.invoke", "java.base/java.lang.ref", "java.base/java.lang.reflect",
	"java.base/java.math", "java.base/java.net", "java.base/java.nio", "java.base/java.nio.charset", "java.base/java.nio.file",
	"java.base/java.security", "java.base/java.text", "java.base/java.time", "java.base/java.time.chrono", "java.base/java.time.zone",
	"java.base/java.util", "java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic", "java.base/java.util.concurrent.locks",
	"java.base/java.util.function", "java.base/java.util.regex", "java.base/java.util.stream", "java.base/java.util.zip",
	"java.base/jdk.internal.misc", "java.base/jdk.internal.ref", "java.base/jdk.internal.reflect",
	"java.base/sun.nio.ch", "java.base/sun.nio.cs", "java.base/sun.nio.fs", "java.base/sun.security.action", "java.base/sun.util.calendar",
	"java.management/sun.management", "jdk.management/com.sun.management.internal", "java.sql/java.sql",
}

// writePathingJar writes a jar with nothing but a manifest: main class, class path, opened packages. A class path of
// hundreds of jars does not fit into an argument.
func writePathingJar(name string, classpath []string) error {
	var buf bytes.Buffer
	jar := zip.NewWriter(&buf)
	w, err := jar.Create(manifestName)
	if err == nil {
		_, err = w.Write([]byte(pathingManifest(classpath)))
	}
	if err == nil {
		err = jar.Close()
	}
	if err == nil {
		err = renameio.WriteFile(name, buf.Bytes(), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the jar with the class path: %w", err)
	}
	return nil
}

// pathingManifest is the manifest. A class path in a manifest has URLs; absolute ones, as the jars may be anywhere. One
// that ends with a slash is a folder.
func pathingManifest(classpath []string) string {
	urls := make([]string, len(classpath))
	for i, path := range classpath {
		u := url.URL{Scheme: "file", Path: filepath.ToSlash(path)}
		urls[i] = u.String()
	}
	var b strings.Builder
	for _, a := range [][2]string{
		{"Manifest-Version", "1.0"},
		{"Main-Class", javaWorker},
		{"Add-Opens", strings.Join(opened, " ")},
		{"Class-Path", strings.Join(urls, " ")},
	} {
		attribute(&b, a[0], a[1])
	}
	return b.String()
}

// attribute writes one attribute in lines of at most 72 bytes (JAR file specification).
func attribute(b *strings.Builder, name, value string) {
	const width = 72
	line := name + ": " + value
	for len(line) > width {
		cut := width
		for !utf8.RuneStart(line[cut]) {
			cut--
		}
		b.WriteString(line[:cut] + "\r\n")
		line = " " + line[cut:]
	}
	b.WriteString(line + "\r\n")
}
