package trestle.core;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Deque;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Passes on what a worker logs to the engine's own log, and keeps the last lines for its
 * post-mortem.
 */
final class LogTail {
  private static final Logger LOG = LoggerFactory.getLogger("trestle.worker");
  private static final int KEPT = 50;
  private static final int LONGEST = 4 << 10;

  private final String prefix;
  private final Deque<String> last = new ArrayDeque<>();
  private final Thread thread;

  LogTail(InputStream in, long pid) {
    prefix = "worker " + pid + ": ";
    thread = new Thread(() -> follow(in), "trestle-worker-" + pid + "-log");
    thread.setDaemon(true);
    thread.start();
  }

  private void follow(InputStream in) {
    try (BufferedReader lines =
        new BufferedReader(new InputStreamReader(in, StandardCharsets.UTF_8))) {
      for (String line = next(lines); line != null; line = next(lines)) {
        LOG.info("{}{}", prefix, line);
        keep(line);
      }
    } catch (IOException e) {
      LOG.debug("{}its log ends: {}", prefix, e.getMessage());
    }
  }

  /** A line, of which what is longer than {@link #LONGEST} is left out; null at the end. */
  private static String next(BufferedReader in) throws IOException {
    StringBuilder line = new StringBuilder();
    for (int c = in.read(); c != '\n'; c = in.read()) {
      if (c < 0) {
        return line.length() == 0 ? null : line.toString();
      }
      if (line.length() < LONGEST && c != '\r') {
        line.append((char) c);
      }
    }
    return line.toString();
  }

  private synchronized void keep(String line) {
    if (last.size() == KEPT) {
      last.removeFirst();
    }
    last.addLast(line);
  }

  /**
   * The last lines, as the end of a sentence's text. Of a worker that has ended it waits a moment
   * for the very last.
   */
  String text(boolean ended) throws InterruptedException {
    if (ended) {
      thread.join(3000); // what the worker started may hold its standard error open for longer
    }
    synchronized (this) {
      return last.isEmpty() ? "It logged nothing." : "Its last lines:\n" + String.join("\n", last);
    }
  }
}
