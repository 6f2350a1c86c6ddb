package trestle.core;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;

/** A shell script in a worker's place, for its process; what it would listen on, the test does. */
final class Script {
  static final String TOKEN = "0123456789abcdef".repeat(4);

  /** Quick, and with a hang of ten beats as usual. */
  static final Limits QUICK =
      new Limits(
          Duration.ofSeconds(10),
          Duration.ofMillis(20),
          Duration.ofMillis(200),
          Duration.ofMillis(500));

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
