package trestle.core;

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The workers of this process, one per job: all tasks of a job in this JVM share it. The first that
 * needs it starts it, and one that has ended, or is ending, is replaced. Engines load these classes
 * once per job, so that there is only one here, unless somebody has put the adapter where all jobs
 * see it.
 */
public final class Workers {
  private static final ReentrantLock LOCK = new ReentrantLock();
  private static final Map<ByteBuffer, Worker> WORKERS = new HashMap<>();

  private Workers() {}

  /** Starts a job's worker. */
  interface Start {
    Worker run() throws FailedException, InterruptedException;
  }

  /**
   * A job's worker that runs, or a new one; in use until the task that is opened with it is closed.
   *
   * @param tmp where the worker's own folder goes
   * @param job what the worker gets unread; not to be changed any more
   * @param tasks how many tasks of a stage may run here side by side
   */
  public static Worker get(Path tmp, byte[] job, int tasks)
      throws FailedException, InterruptedException {
    return get(job, () -> start(tmp, job, tasks));
  }

  static Worker get(byte[] job, Start start) throws FailedException, InterruptedException {
    LOCK.lockInterruptibly();
    try {
      Worker worker = WORKERS.get(ByteBuffer.wrap(job));
      if (worker == null || !worker.claim()) {
        worker = start.run();
        WORKERS.put(ByteBuffer.wrap(job), worker);
      }
      return worker;
    } finally {
      LOCK.unlock();
    }
  }

  private static Worker start(Path tmp, byte[] job, int tasks)
      throws FailedException, InterruptedException {
    Path binary = Binary.unpack(Path.of(System.getProperty("java.io.tmpdir")));
    Path scratch =
        tmp.resolve("trestle-worker-" + ProcessHandle.current().pid() + "-" + UUID.randomUUID());
    return Worker.start(
        List.of(
            binary.toString(),
            "worker",
            "--scratch",
            scratch.toString(),
            "--tasks",
            Integer.toString(tasks)),
        job,
        Limits.USUAL);
  }

  /**
   * Ends a job's worker, if there is one. For when the engine gives the job up here: no task is
   * left. Returns at once.
   */
  public static void stop(byte[] job) {
    LOCK.lock();
    try {
      Worker worker = WORKERS.remove(ByteBuffer.wrap(job));
      if (worker != null) {
        worker.stop();
      }
    } finally {
      LOCK.unlock();
    }
  }
}
