package trestle.core;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Starts a program that this process may just have written. Linux refuses to run a file that is
 * open for writing anywhere (ETXTBSY), and so it is for a moment after it was closed here: a
 * process that another thread started meanwhile has this one's open files until it is about to
 * become its own program.
 */
final class Spawn {
  private static final Logger LOG = LoggerFactory.getLogger("trestle.worker");

  /** Far longer than a process takes from its fork to its exec on a busy host. */
  static final Duration PATIENCE = Duration.ofSeconds(20);

  private static final Duration PAUSE = Duration.ofMillis(20);

  /** As the JDKs put it: {@code error=26, ...}, and {@code error: 26 (...)}. */
  private static final Pattern BUSY = Pattern.compile("error[=:] ?26\\b");

  private Spawn() {}

  /**
   * Starts a process, as soon as its program is not open for writing any more.
   *
   * @param patience for how long it may be
   * @param busy called each time that it is
   */
  static Process start(List<String> command, Duration patience, Runnable busy)
      throws IOException, InterruptedException {
    long start = System.nanoTime();
    for (int tries = 1; ; tries++) {
      try {
        Process process = new ProcessBuilder(command).start();
        if (tries > 1) {
          LOG.info("{} was started at the {}. try: it was open for writing", command.get(0), tries);
        }
        return process;
      } catch (IOException e) {
        if (e.getMessage() == null || !BUSY.matcher(e.getMessage()).find()) {
          throw e;
        }
        if (System.nanoTime() - start >= patience.toNanos()) {
          throw new IOException(
              "a process has had it open for writing for "
                  + patience.toSeconds()
                  + " s: "
                  + e.getMessage(),
              e);
        }
        busy.run();
        Thread.sleep(PAUSE.toMillis());
      }
    }
  }
}
