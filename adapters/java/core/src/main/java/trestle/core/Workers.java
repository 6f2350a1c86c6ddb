package trestle.core;

import java.nio.file.Path;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The worker of this class loader, of which engines make one per job and process: so all tasks of a
 * job in this JVM share one. The first that needs it starts it, and one that has died is replaced.
 */
public final class Workers {
  private static final ReentrantLock LOCK = new ReentrantLock();
  private static Worker current;

  private Workers() {}

  /**
   * The worker that runs, or a new one.
   *
   * @param tmp where the worker's own folder goes
   * @param job the same at each call
   */
  public static Worker get(Path tmp, byte[] job) throws FailedException, InterruptedException {
    LOCK.lockInterruptibly();
    try {
      if (current == null || !current.alive()) {
        Path binary = Binary.unpack(Path.of(System.getProperty("java.io.tmpdir")));
        Path scratch =
            tmp.resolve(
                "trestle-worker-" + ProcessHandle.current().pid() + "-" + UUID.randomUUID());
        current =
            Worker.start(
                List.of(binary.toString(), "worker", "--scratch", scratch.toString()),
                job,
                Limits.USUAL);
      }
      return current;
    } finally {
      LOCK.unlock();
    }
  }

  /**
   * Ends the worker, if there is one. For when the class loader is given up: by then no task is
   * left. Returns at once.
   */
  public static void stop() {
    LOCK.lock();
    try {
      if (current != null) {
        current.stop();
        current = null;
      }
    } finally {
      LOCK.unlock();
    }
  }
}
