package trestle.core;

import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.BitSet;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A task in a worker, driven from one thread of the engine's, on which all of its output is passed
 * on too. A thread of its own always reads what the worker sends, so that no write on either side
 * waits for ever; credits bound what it has read and the engine has not taken yet.
 *
 * <p>Every wait can be interrupted. After an exception nothing but {@link #close} may follow.
 */
public final class Task {
  private static final Logger LOG = LoggerFactory.getLogger(Task.class);

  /**
   * How many bytes of emits may be under way: some time's worth of work for the worker while the
   * engine is busy.
   */
  private static final long WINDOW = 4 << 20;

  /** Credit is given back in pieces of this size, and whenever the worker might wait for it. */
  private static final long PIECE = 256 << 10;

  /** What a block is charged with besides its length. */
  static final int CHARGE = 64;

  /** How many frames are handled before the engine gets its thread back. */
  private static final int BATCH = 64;

  /** Takes what a task sends, on the engine's thread. */
  public interface Output {
    /** Passes a block on, which is the engine's from now on. May wait. */
    void emit(int exchange, int keyGroup, byte[] block) throws Exception;

    /** Replaces the task's report. */
    void report(byte[] report);
  }

  private final Worker worker;
  private final Socket socket;
  private final FrameWriter out;
  private final Output output;
  private final Runnable wake;
  private final LinkedBlockingQueue<Frame> frames = new LinkedBlockingQueue<>();
  private final BitSet ended = new BitSet();
  private volatile boolean closing;
  private boolean closed;
  private boolean opened;
  private boolean broken; // nothing more can be sent
  private boolean over; // nothing more will come
  private long window; // how many bytes of blocks the worker lets be under way
  private long underWay; // and how many are
  private long passedOn; // bytes of emits for which credit has not been given back

  private Task(Worker worker, Socket socket, Output output, Runnable wake) throws IOException {
    this.worker = worker;
    this.socket = socket;
    this.output = output;
    this.wake = wake;
    out = new FrameWriter(socket.getOutputStream());
  }

  /**
   * Opens a task and waits until it is there.
   *
   * @param worker in use for this task, which ends with the task, or when it cannot be opened
   * @param attempt how often the engine has started this task before
   * @param wake called, from another thread, when there is something to {@link #drain}
   */
  public static Task open(
      Worker worker,
      int stage,
      int task,
      int parallelism,
      int attempt,
      Output output,
      Runnable wake)
      throws Exception {
    Task opening;
    try {
      opening = connect(worker, output, wake);
    } catch (Exception e) {
      worker.release();
      throw e;
    }
    try {
      Thread reader = new Thread(opening::read, "trestle-task-" + stage + "-" + task);
      reader.setDaemon(true);
      reader.start();
      opening.write(() -> opening.out.open(stage, task, parallelism, attempt, WINDOW));
      while (!opening.opened) {
        opening.step();
      }
      return opening;
    } catch (Exception e) {
      opening.close();
      throw e;
    }
  }

  private static Task connect(Worker worker, Output output, Runnable wake) throws Exception {
    try {
      Socket socket = worker.connect();
      return new Task(worker, socket, output, wake);
    } catch (IOException e) {
      throw new FailedException(worker.postMortem() + "\n(" + e.getMessage() + ")", e);
    }
  }

  /** Gives the task a block; waits for credit, and passes on meanwhile what the task sends. */
  public void process(int input, int keyGroup, byte[] block) throws Exception {
    drain();
    long charge = block.length + CHARGE;
    while (underWay > 0 && underWay + charge > window) {
      step();
    }
    underWay += charge;
    write(() -> out.process(input, keyGroup, block));
  }

  /** Nothing more will come on this input. Does not wait for what follows from that. */
  public void end(int input) throws Exception {
    write(() -> out.end(input));
  }

  /** Waits until all that follows from an input's end has been passed on. */
  public void awaitEnded(int input) throws Exception {
    while (!ended.get(input)) {
      step();
    }
  }

  /** Passes on what has come so far, without waiting for more. */
  public void drain() throws Exception {
    for (int n = 0; n < BATCH; n++) {
      Frame frame = frames.poll();
      if (frame == null) {
        returnCredit(1);
        return;
      }
      handle(frame);
    }
    if (!frames.isEmpty()) {
      wake.run();
    }
  }

  /** Waits for one frame. */
  private void step() throws Exception {
    Frame frame = frames.poll();
    if (frame == null) {
      returnCredit(1);
      frame = frames.take();
    }
    handle(frame);
  }

  private void handle(Frame frame) throws Exception {
    switch (frame.type) {
      case Frame.OPENED:
        opened = true;
        window = frame.number;
        break;
      case Frame.EMIT:
        output.emit(frame.index, frame.keyGroup, frame.body);
        passedOn += frame.body.length + CHARGE;
        returnCredit(PIECE);
        break;
      case Frame.ENDED:
        ended.set(frame.index);
        break;
      case Frame.REPORT:
        output.report(frame.body);
        break;
      case Frame.CREDIT:
        underWay -= frame.number;
        break;
      case Frame.FAILED:
        throw new FailedException(frame.index == 1, text(frame));
      case Frame.LOST:
        over = true;
        throw new FailedException(false, text(frame));
      default:
        throw new FailedException(
            false, "the worker sent a frame of type " + frame.type + " out of order");
    }
  }

  private static String text(Frame frame) {
    return new String(frame.body, StandardCharsets.UTF_8);
  }

  private void returnCredit(long atLeast) throws Exception {
    if (passedOn >= atLeast && !broken) {
      long bytes = passedOn;
      passedOn = 0;
      write(() -> out.credit(bytes));
    }
  }

  private interface Write {
    void run() throws IOException;
  }

  /** A write that fails does so because the connection is gone; why, the reader finds out. */
  private void write(Write write) throws Exception {
    try {
      write.run();
    } catch (IOException e) {
      LOG.debug("write to worker {}: {}", worker.pid(), e.getMessage());
      broken = true;
      while (true) {
        handle(frames.take()); // ends with what the worker said last, or with its post-mortem
      }
    }
  }

  private void read() {
    boolean failed = false;
    try {
      FrameReader in = new FrameReader(socket.getInputStream());
      Frame frame;
      do {
        frame = in.read();
        failed |= frame.type == Frame.FAILED;
        pass(frame);
      } while (frame.type != Frame.CLOSED);
    } catch (IOException e) {
      pass(lost(e, failed));
    }
  }

  private void pass(Frame frame) {
    frames.add(frame);
    wake.run();
  }

  /**
   * The end of a connection. Nobody is told of it who closes the task, or has been told why it
   * failed: then the worker is not waited for either.
   */
  private Frame lost(IOException why, boolean failed) {
    String text = "the connection to the worker was closed";
    if (!closing && !failed) {
      try {
        text =
            worker.postMortem() + (why.getMessage() == null ? "" : "\n(" + why.getMessage() + ")");
      } catch (InterruptedException e) {
        text +=
            ", and the wait for its end was interrupted"; // by nobody: the thread is this task's
        // own
      }
    }
    return new Frame(Frame.LOST, 0, 0, 0, text.getBytes(StandardCharsets.UTF_8));
  }

  /**
   * Ends the task, and waits a while for the worker to have done so. What it still emits is
   * dropped.
   */
  public void close() {
    if (closed) {
      return;
    }
    closed = true;
    try {
      end();
    } finally {
      worker.release();
    }
  }

  private void end() {
    closing = true;
    try (socket) {
      if (over) {
        return;
      }
      out.close();
      long end = System.nanoTime() + worker.limits().end.toNanos();
      Frame frame;
      do {
        frame = frames.poll(end - System.nanoTime(), TimeUnit.NANOSECONDS);
        if (frame == null) {
          LOG.warn(
              "worker {} has not closed a task within {} s",
              worker.pid(),
              worker.limits().end.toSeconds());
          return;
        }
      } while (frame.type != Frame.CLOSED && frame.type != Frame.LOST);
    } catch (IOException e) {
      LOG.debug("worker {} had closed the task: {}", worker.pid(), e.getMessage());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
