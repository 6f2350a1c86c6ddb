package trestle.core;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;

/** A shell script in a worker's place, for its process; what it would listen on, the test does. */
final class Script {
  static final String TOKEN = "0123456789abcdef".repeat(4);

  /** Quick beats, and patience: for tests in which nothing has to run out. */
  static final Limits PATIENT =
      new Limits(
          Duration.ofSeconds(60),
          Duration.ofMillis(20),
          Duration.ofSeconds(60),
          Duration.ofSeconds(60),
          Duration.ofSeconds(60),
          Duration.ofHours(1));

  /** The same, but for what does not end when it is told to. */
  static final Limits SHORT_END =
      new Limits(
          PATIENT.start,
          PATIENT.beat,
          PATIENT.hang,
          Duration.ofSeconds(1),
          PATIENT.dying,
          PATIENT.idle);

  /** The same, but for what breaks off connections, or says nonsense, and does not end. */
  static final Limits SHORT_DYING =
      new Limits(
          PATIENT.start,
          PATIENT.beat,
          PATIENT.hang,
          PATIENT.end,
          Duration.ofSeconds(1),
          PATIENT.idle);

  /** The same, but for what does not answer. */
  static final Limits SHORT_HANG =
      new Limits(
          PATIENT.start,
          PATIENT.beat,
          Duration.ofSeconds(2),
          PATIENT.end,
          PATIENT.dying,
          PATIENT.idle);

  /** Ends when nobody uses it, at the first beat that finds it so. */
  static final Limits SHORT_IDLE =
      new Limits(
          PATIENT.start,
          Duration.ofMillis(1),
          PATIENT.hang,
          PATIENT.end,
          PATIENT.dying,
          Duration.ZERO);

  private final Path file;

  /** A script of these lines, which gets its folder as its argument. */
  Script(Path dir, String... lines) throws IOException {
    file = dir.resolve("worker.sh");
    Files.writeString(file, String.join("\n", lines) + "\n");
  }

  List<String> command() {
    return List.of("/bin/sh", file.toString(), file.getParent().toString());
  }

  static String address(int port) {
    return "echo trestle-worker 1 " + port + " " + TOKEN;
  }
}
