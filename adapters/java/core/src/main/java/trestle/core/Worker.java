package trestle.core;

import java.io.BufferedReader;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A worker's process, from its start to its end. It ends when it is told to, when it hangs, when
 * nobody has used it for long, or by itself; also with this JVM, since its standard input then
 * ends. For any thread.
 */
public final class Worker {
  private static final Logger LOG = LoggerFactory.getLogger("trestle.worker");

  private final Process process;
  private final Limits limits;
  private final LogTail log;
  private final CompletableFuture<Address> address = new CompletableFuture<>();
  private final CountDownLatch stop = new CountDownLatch(1);
  private volatile String killed;
  private int uses = 1; // guarded by this, like the next
  private long idleSince;

  private Worker(Process process, Limits limits) {
    this.process = process;
    this.limits = limits;
    log = new LogTail(process.getErrorStream(), process.pid());
  }

  /**
   * Starts a worker and waits until it listens. It is in use, as after {@link #claim}.
   *
   * @param command the binary and its arguments
   * @param job what it gets unread
   * @throws FailedException when it does not start, with what it logged
   */
  static Worker start(List<String> command, byte[] job, Limits limits)
      throws FailedException, InterruptedException {
    Process process;
    try {
      process = Spawn.start(command, Spawn.PATIENCE, () -> {});
    } catch (IOException e) {
      throw new FailedException(
          "Trestle's worker could not be started on " + Host.name() + ": " + e.getMessage(), e);
    }
    Worker worker = new Worker(process, limits);
    worker.thread("start", () -> worker.converse(job));
    try {
      worker.awaitAddress();
    } catch (FailedException | InterruptedException e) {
      process.destroyForcibly();
      throw e;
    }
    worker.thread("keep", worker::keep);
    LOG.info("worker {} listens on port {}", process.pid(), worker.address.join().port);
    return worker;
  }

  private void thread(String what, Runnable run) {
    Thread thread = new Thread(run, "trestle-worker-" + process.pid() + "-" + what);
    thread.setDaemon(true);
    thread.start();
  }

  /** Gives the worker its job, takes its address, and reads on, so that it never waits for us. */
  private void converse(byte[] job) {
    try {
      DataOutputStream in =
          new DataOutputStream(
              process.getOutputStream()); // which stays open: its end is the worker's
      in.writeInt(job.length);
      in.write(job);
      in.flush();
    } catch (IOException e) {
      LOG.debug(
          "worker {} did not take its job: {}",
          process.pid(),
          e.getMessage()); // and its log says why
    }
    try (BufferedReader out =
        new BufferedReader(
            new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      address.complete(Address.parse(out.readLine()));
      for (String line = out.readLine(); line != null; line = out.readLine()) {
        LOG.warn("worker {} printed {}", process.pid(), line);
      }
    } catch (IOException e) {
      address.completeExceptionally(e);
    }
  }

  private void awaitAddress() throws FailedException, InterruptedException {
    try {
      address.get(limits.start.toMillis(), TimeUnit.MILLISECONDS);
    } catch (TimeoutException e) {
      throw new FailedException(
          false,
          name() + " did not start within " + limits.start.toSeconds() + " s. " + log.text(false));
    } catch (ExecutionException e) {
      String why = ended(limits.dying) ? status() : e.getCause().getMessage();
      throw new FailedException(
          false, name() + " could not start: " + why + ". " + log.text(!process.isAlive()));
    }
  }

  /**
   * Watches the worker until it is told to stop, hangs, or ends. Uses no class that is not loaded
   * by then.
   */
  private void keep() {
    try {
      try (Socket socket = connect()) {
        String hang = new Heartbeat(limits, stop, this::retire).beat(socket);
        if (hang != null) {
          kill(hang);
        }
      } catch (IOException e) {
        LOG.info("worker {} does not want to go on: {}", process.pid(), e.getMessage());
      }
      end();
    } catch (InterruptedException e) {
      process.destroyForcibly(); // nobody interrupts this thread; whoever does wants it gone
    }
  }

  /**
   * Sees to it that the worker ends; in order, if it takes the chance, since it has something to
   * clean up.
   */
  private void end() throws InterruptedException {
    stop();
    if (ended(limits.end)) {
      return;
    }
    LOG.warn("worker {} does not end by itself, and is terminated", process.pid());
    // By its handle: the process's own method closes its log, of which the last lines are still to
    // be read.
    process.toHandle().destroy();
    if (!ended(limits.end)) {
      process.toHandle().destroyForcibly();
    }
  }

  /** A new connection, after its hello. */
  Socket connect() throws IOException {
    Address to = address.join();
    Socket socket = new Socket();
    try {
      socket.connect(
          new InetSocketAddress(InetAddress.getByAddress(new byte[] {127, 0, 0, 1}), to.port),
          (int) limits.hang.toMillis());
      socket.setTcpNoDelay(true);
      new FrameWriter(socket.getOutputStream()).hello(to.token);
      return socket;
    } catch (IOException e) {
      socket.close();
      throw e;
    }
  }

  Limits limits() {
    return limits;
  }

  /**
   * Takes the worker into use, so that it does not end for want of tasks until {@link #release}.
   * False when it has ended, or is ending.
   */
  synchronized boolean claim() {
    if (!alive()) {
      return false;
    }
    uses++;
    return true;
  }

  /** Ends one use. */
  synchronized void release() {
    uses--;
    if (uses == 0) {
      idleSince = System.nanoTime();
    }
  }

  /**
   * Ends a worker that nobody uses: an engine may keep what it has of a job for long after its end,
   * and its word that the job is over may never come. Whoever claims the worker either does so
   * before, and it stays, or finds that it is ending.
   */
  private synchronized void retire() {
    if (uses > 0 || System.nanoTime() - idleSince < limits.idle.toNanos()) {
      return;
    }
    if (alive()) {
      LOG.info(
          "worker {} has had no task for {} s, and ends; another is started when there is one",
          process.pid(),
          limits.idle.toSeconds());
    }
    stop.countDown();
  }

  public boolean alive() {
    return stop.getCount() > 0 && process.isAlive();
  }

  public long pid() {
    return process.pid();
  }

  /** Ends the worker, its tasks with it. Returns at once. */
  void stop() {
    stop.countDown();
    try {
      process.getOutputStream().close();
    } catch (IOException e) {
      LOG.debug("worker {} had closed its standard input: {}", process.pid(), e.getMessage());
    }
  }

  /** Kills the worker; all its tasks fail with this reason. */
  private void kill(String why) {
    killed = why;
    LOG.error("worker {} is killed: {}", process.pid(), why);
    process.toHandle().destroyForcibly(); // which leaves its log to be read to its end
  }

  /**
   * Why a connection to the worker has broken, for a person; waits a moment for its process to end.
   */
  String postMortem() throws InterruptedException {
    if (!ended(limits.dying)) {
      return name() + " has broken off a connection. " + log.text(false);
    }
    String why = killed == null ? status() : "was killed because " + killed;
    return name() + " is gone: it " + why + ". " + log.text(true);
  }

  private String name() {
    return "Trestle's worker " + process.pid() + " on " + Host.name();
  }

  private String status() {
    int status = process.exitValue();
    switch (status) {
      case 137:
        return "was killed (exit status 137); if nobody did, the host or its container ran out of memory";
      case 143:
        return "was terminated (exit status 143)";
      default:
        return "ended with exit status " + status;
    }
  }

  private boolean ended(Duration within) throws InterruptedException {
    return process.waitFor(within.toMillis(), TimeUnit.MILLISECONDS);
  }

  /** Where a worker listens. */
  private static final class Address {
    final int port;
    final byte[] token;

    private Address(int port, byte[] token) {
      this.port = port;
      this.token = token;
    }

    /** Reads {@code trestle-worker 1 PORT TOKEN}. */
    static Address parse(String line) throws IOException {
      if (line == null) {
        throw new IOException("it said no address");
      }
      String[] words = line.split(" ");
      if (words.length != 4
          || !words[0].equals("trestle-worker")
          || !words[1].equals(Integer.toString(FrameWriter.VERSION))
          || !words[2].matches("[0-9]{1,5}")
          || !words[3].matches("[0-9a-f]{64}")) {
        throw new IOException("it said \"" + line + "\" where its address should be");
      }
      byte[] token = new byte[32];
      for (int i = 0; i < token.length; i++) {
        token[i] = (byte) Integer.parseInt(words[3].substring(2 * i, 2 * i + 2), 16);
      }
      return new Address(Integer.parseInt(words[2]), token);
    }
  }
}
