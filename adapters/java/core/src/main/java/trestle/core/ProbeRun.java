package trestle.core;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * What {@code trestle probe} says about this host: it gets a package unread on its standard input
 * and answers with a JSON value. Whatever goes wrong is an answer too, since the point of probing
 * is to learn it.
 */
public final class ProbeRun {
  private static final Duration LIMIT = Duration.ofSeconds(60);

  /** For the rest of what a probe said, once it has ended. */
  private static final Duration DRAIN = Duration.ofSeconds(10);

  private static final int LONGEST = 1 << 20;

  private ProbeRun() {}

  /**
   * Runs the probe.
   *
   * @param host by which people know this host
   * @param tmp where workers' own folders would go
   * @return a JSON object: {@code host}, and {@code report}, the probe's own, or {@code error}, a
   *     text
   */
  public static String json(String host, Path tmp, byte[] pack) throws InterruptedException {
    try {
      Path binary = Binary.unpack(Path.of(System.getProperty("java.io.tmpdir")));
      String report =
          run(List.of(binary.toString(), "probe", "--scratch", tmp.toString()), pack, LIMIT);
      return "{\"host\":" + quoted(host) + ",\"report\":" + report + "}";
    } catch (FailedException e) {
      return "{\"host\":" + quoted(host) + ",\"error\":" + quoted(e.getMessage()) + "}";
    }
  }

  static String run(List<String> command, byte[] pack, Duration limit)
      throws FailedException, InterruptedException {
    Process process;
    try {
      process = new ProcessBuilder(command).start();
    } catch (IOException e) {
      throw new FailedException("the probe could not be started: " + e.getMessage(), e);
    }
    try {
      LogTail log = new LogTail(process.getErrorStream(), process.pid());
      CompletableFuture<Void> fed = async(() -> feed(process.getOutputStream(), pack));
      CompletableFuture<String> said = async(() -> read(process.getInputStream()));
      if (!process.waitFor(limit.toMillis(), TimeUnit.MILLISECONDS)) {
        throw new FailedException(
            false, "the probe did not end within " + limit.toSeconds() + " s. " + log.text(false));
      }
      if (process.exitValue() != 0) {
        throw new FailedException(
            false,
            "the probe ended with exit status " + process.exitValue() + ". " + log.text(true));
      }
      fed.get(DRAIN.toSeconds(), TimeUnit.SECONDS);
      return said.get(DRAIN.toSeconds(), TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      throw new FailedException("the probe broke off: " + e.getCause().getMessage(), e);
    } catch (TimeoutException e) {
      throw new FailedException("the probe ended, and what it started holds on to its output", e);
    } finally {
      process.destroyForcibly();
    }
  }

  private static Void feed(OutputStream in, byte[] pack) throws IOException {
    try (in) {
      in.write(pack);
    }
    return null;
  }

  private static String read(InputStream out) throws IOException {
    byte[] said = out.readNBytes(LONGEST);
    if (out.transferTo(OutputStream.nullOutputStream())
        > 0) { // read to its end, or the probe would wait
      throw new IOException("it said more than " + LONGEST + " bytes");
    }
    return new String(said, StandardCharsets.UTF_8);
  }

  private interface Work<T> {
    T run() throws IOException;
  }

  private static <T> CompletableFuture<T> async(Work<T> work) {
    CompletableFuture<T> done = new CompletableFuture<>();
    Thread thread =
        new Thread(
            () -> {
              try {
                done.complete(work.run());
              } catch (IOException e) {
                done.completeExceptionally(e);
              }
            },
            "trestle-probe");
    thread.setDaemon(true);
    thread.start();
    return done;
  }

  /** A JSON string. */
  static String quoted(String text) {
    StringBuilder json = new StringBuilder("\"");
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (c == '"' || c == '\\') {
        json.append('\\').append(c);
      } else if (c < ' ') {
        json.append(String.format("\\u%04x", (int) c));
      } else {
        json.append(c);
      }
    }
    return json.append('"').toString();
  }
}
