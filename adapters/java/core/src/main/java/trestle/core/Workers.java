package trestle.core;

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The workers of this process, one per job: all tasks of a job in this JVM share it. The first that
 * needs it starts it, and one that has ended, or is ending, is replaced. Engines load these classes
 * once per job, so that there is only one here, unless somebody has put the adapter where all jobs
 * see it.
 */
public final class Workers {
  private static final ConcurrentHashMap<ByteBuffer, Slot> SLOTS = new ConcurrentHashMap<>();

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
    return SLOTS.computeIfAbsent(ByteBuffer.wrap(job), key -> new Slot()).get(start);
  }

  /** Where a job's worker is. Jobs do not wait for each other's workers to start. */
  private static final class Slot {
    private final ReentrantLock starting = new ReentrantLock();
    private Worker worker; // guarded by this, like the next
    private boolean stopped;

    Worker get(Start start) throws FailedException, InterruptedException {
      starting.lockInterruptibly();
      try {
        Worker running = running();
        if (running != null && running.claim()) {
          return running;
        }
        Worker fresh = start.run();
        if (!keep(fresh)) {
          fresh.stop();
          running(); // which tells
        }
        return fresh;
      } finally {
        starting.unlock();
      }
    }

    private synchronized Worker running() throws FailedException {
      if (stopped) {
        throw new FailedException(
            false,
            "the engine gave the job up on " + Host.name() + " while its worker was started");
      }
      return worker;
    }

    private synchronized boolean keep(Worker fresh) {
      if (!stopped) {
        worker = fresh;
      }
      return !stopped;
    }

    /** Ends the worker that is there, or the one that is being started, once it is. */
    synchronized void stop() {
      stopped = true;
      if (worker != null) {
        worker.stop();
      }
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
    Slot slot = SLOTS.remove(ByteBuffer.wrap(job));
    if (slot != null) {
      slot.stop();
    }
  }
}
