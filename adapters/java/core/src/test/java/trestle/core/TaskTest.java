package trestle.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowable;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A task over a real connection, whose other end the test plays. */
@Timeout(180)
final class TaskTest {
  @TempDir Path dir;
  private final List<String> emitted = new ArrayList<>();
  private final List<String> reports = new ArrayList<>();
  private final Semaphore woken = new Semaphore(0);
  private Peer peer;
  private Worker worker;

  private final Task.Output output =
      new Task.Output() {
        @Override
        public void emit(int exchange, int keyGroup, byte[] block) {
          emitted.add(exchange + "/" + keyGroup + "/" + block.length);
        }

        @Override
        public void report(byte[] report) {
          reports.add(new String(report, StandardCharsets.UTF_8));
        }
      };

  private Task open(Peer.Serve serve) throws Exception {
    return open(serve, Script.PATIENT);
  }

  private Task open(Peer.Serve serve, Limits limits) throws Exception {
    peer = new Peer(serve);
    Script script = new Script(dir, Script.address(peer.port()), "cat >/dev/null");
    worker = Worker.start(script.command(), new byte[0], limits);
    return Task.open(worker, 1, 2, 3, 0, output, woken::release);
  }

  @AfterEach
  void end() throws Exception {
    worker.stop();
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElse(null);
    if (process != null) {
      process.onExit().get(60, TimeUnit.SECONDS);
    }
    peer.close();
    assertThat(peer.wrong).isEmpty();
  }

  @Test
  void allOutputComesBeforeTheEnd() throws Exception {
    Task task =
        open(
            (in, out, credit) -> {
              frame(out, 65, 8, o -> o.writeLong(1000));
              assertThat(skip(in, 4)).isZero(); // end of input 0
              emit(out, 3, 7, 5);
              emit(out, 4, 0, 0);
              frame(out, 68, 2, o -> o.writeBytes("{}"));
              // The adapter returns credit, in one piece or two, before it waits for more.
              for (long credited = 0; credited < 5 + 0 + 2 * 64; ) {
                credited += skip(in, 6);
                assertThat(credited).isLessThanOrEqualTo(5 + 0 + 2 * 64);
              }
              frame(out, 67, 4, o -> o.writeInt(0));
              skip(in, 5);
              frame(out, 71, 0, o -> {});
            });
    task.end(0);
    task.awaitEnded(0);
    assertThat(emitted).containsExactly("3/7/5", "4/0/0");
    assertThat(reports).containsExactly("{}");
    task.close();
  }

  @Test
  void whatComesWhileTheEngineIsIdleWakesIt() throws Exception {
    CountDownLatch go = new CountDownLatch(1);
    Task task =
        open(
            (in, out, credit) -> {
              frame(out, 65, 8, o -> o.writeLong(1000));
              await(go);
              emit(out, 1, 1, 1);
              skip(in, 6);
              skip(in, 5);
              frame(out, 71, 0, o -> {});
            });
    go.countDown();
    while (emitted.isEmpty()) { // what opened the task may wake it late
      woken.acquire();
      task.drain();
    }
    assertThat(emitted).containsExactly("1/1/1");
    task.close();
  }

  /**
   * Each block makes three of its size, and both sides have far more to send than either lets be
   * under way.
   */
  @Test
  void bothDirectionsMayBeFull() throws Exception {
    int blocks = 2000;
    int size = 30_000;
    long window = 3 * (size + Task.CHARGE);
    AtomicLong most = new AtomicLong();
    Task task = open((in, out, credit) -> new Echo(in, out, window, credit, most).run());
    for (int i = 0; i < blocks; i++) {
      task.process(0, i, new byte[size]);
    }
    task.end(0);
    task.awaitEnded(0);
    assertThat(emitted).hasSize(3 * blocks);
    for (int i = 0; i < blocks; i++) {
      assertThat(emitted.get(3 * i + 2)).isEqualTo("2/" + i + "/" + size);
    }
    assertThat(most.get()).isBetween(window - size, window);
    task.close();
  }

  @Test
  void aBlockLargerThanTheWholeCreditPassesAlone() throws Exception {
    AtomicLong most = new AtomicLong();
    Task task = open((in, out, credit) -> new Echo(in, out, 1000, credit, most).run());
    for (int size : new int[] {10, 5000, 10, 10}) {
      task.process(0, 0, new byte[size]);
    }
    task.end(0);
    task.awaitEnded(0);
    assertThat(emitted).hasSize(12).contains("0/0/5000");
    assertThat(most.get()).isEqualTo(5000 + Task.CHARGE);
    task.close();
  }

  @Test
  void aFailureIsInTheWorkersWords() throws Exception {
    for (int kind = 0; kind < 2; kind++) {
      int k = kind;
      Task task =
          open(
              (in, out, credit) -> {
                frame(out, 65, 8, o -> o.writeLong(1000));
                skip(in, 4);
                byte[] text = "user code, wörds".getBytes(StandardCharsets.UTF_8);
                frame(
                    out,
                    70,
                    1 + text.length,
                    o -> {
                      o.writeByte(k);
                      o.write(text);
                    });
                frame(out, 71, 0, o -> {});
              });
      task.end(0);
      FailedException e = catchThrowableOfType(FailedException.class, () -> task.awaitEnded(0));
      assertThat(e).hasMessage("user code, wörds");
      assertThat(e.hopeless()).isEqualTo(kind == 1);
      long start = System.nanoTime();
      task.close();
      assertThat(System.nanoTime() - start).isLessThan(Script.PATIENT.end.toNanos());
      if (kind == 0) {
        end();
      }
    }
  }

  @Test
  void aTaskThatIsRefusedFailsToOpen() throws Exception {
    FailedException e =
        catchThrowableOfType(
            FailedException.class,
            () ->
                open(
                    (in, out, credit) -> {
                      frame(out, 70, 3, o -> o.writeBytes("\001no"));
                      frame(out, 71, 0, o -> {});
                    }));
    assertThat(e).hasMessage("no");
    assertThat(e.hopeless()).isTrue();
  }

  /** A worker that hangs up with its refusal, and lives on: there is nothing else to be told. */
  @Test
  void aRefusalIsToldWithoutAWaitForTheWorkersEnd() throws Exception {
    long start = System.nanoTime();
    FailedException e =
        catchThrowableOfType(
            FailedException.class,
            () -> open((in, out, credit) -> frame(out, 70, 3, o -> o.writeBytes("\000no"))));
    assertThat(e).hasMessage("no");
    assertThat(System.nanoTime() - start).isLessThan(Script.PATIENT.dying.toNanos());
  }

  @Test
  void aConnectionThatBreaksIsSaidWithWhatTheWorkerLogged() throws Exception {
    Task task =
        open((in, out, credit) -> frame(out, 65, 8, o -> o.writeLong(1000)), Script.SHORT_DYING);
    task.end(0);
    FailedException e = catchThrowableOfType(FailedException.class, () -> task.awaitEnded(0));
    assertThat(e.getMessage())
        .startsWith("Trestle's worker " + worker.pid() + " on " + Host.name())
        .contains("has broken off a connection. It logged nothing.");
    assertThat(e.hopeless()).isFalse();
    task.close();
  }

  @Test
  void frameOutOfOrderIsAFailure() throws Exception {
    Task task =
        open(
            (in, out, credit) -> {
              frame(out, 65, 8, o -> o.writeLong(1000));
              frame(out, 72, 8, o -> o.writeLong(1));
              skip(in, 5);
            });
    Throwable thrown = catchThrowable(() -> task.awaitEnded(0));
    assertThat(thrown).hasMessage("the worker sent a frame of type 72 out of order");
    task.close();
  }

  @Test
  void everyWaitCanBeInterrupted() throws Exception {
    Task task =
        open(
            (in, out, credit) -> {
              frame(out, 65, 8, o -> o.writeLong(1000));
              skip(in, 5); // which never comes, since the interrupted close does not wait
            });
    task.process(0, 0, new byte[900]);
    Thread.currentThread().interrupt();
    assertThat(catchThrowable(() -> task.process(0, 0, new byte[900])))
        .isInstanceOf(InterruptedException.class);
    Thread.currentThread().interrupt();
    assertThat(catchThrowable(() -> task.awaitEnded(0))).isInstanceOf(InterruptedException.class);
    task.close();
  }

  @Test
  void aTaskThatDoesNotCloseIsLeft() throws Exception {
    CountDownLatch done = new CountDownLatch(1);
    Task task =
        open(
            (in, out, credit) -> {
              frame(out, 65, 8, o -> o.writeLong(1000));
              await(done);
            },
            Script.SHORT_END);
    long start = System.nanoTime();
    task.close();
    assertThat(System.nanoTime() - start)
        .isBetween(Script.SHORT_END.end.toNanos(), TimeUnit.SECONDS.toNanos(60));
    done.countDown();
  }

  /**
   * A worker's task that emits each block three times, under the rules of credits, and watches the
   * adapter's.
   */
  private static final class Echo {
    private final DataInputStream in;
    private final DataOutputStream out;
    private final long window;
    private final AtomicLong most;
    private final LinkedBlockingQueue<int[]> blocks = new LinkedBlockingQueue<>();
    private final AtomicLong underWay = new AtomicLong();
    private final long emitWindow;
    private long emitsUnderWay;

    Echo(DataInputStream in, DataOutputStream out, long window, long credit, AtomicLong most) {
      this.in = in;
      this.out = out;
      this.window = window;
      this.emitWindow = credit;
      this.most = most;
    }

    void run() throws IOException {
      frame(out, 65, 8, o -> o.writeLong(window));
      Thread work = new Thread(this::work);
      work.start();
      while (true) {
        int length = in.readInt();
        int type = in.readUnsignedByte();
        switch (type) {
          case 3:
            in.readInt();
            int keyGroup = in.readInt();
            int size = in.readNBytes(length - 9).length;
            most.accumulateAndGet(underWay.addAndGet(size + Task.CHARGE), Math::max);
            blocks.add(new int[] {keyGroup, size});
            break;
          case 4:
            in.readInt();
            blocks.add(new int[0]);
            break;
          case 6:
            long bytes = in.readLong();
            synchronized (this) {
              emitsUnderWay -= bytes;
              notifyAll();
            }
            break;
          default:
            frame(out, 71, 0, o -> {});
            return;
        }
      }
    }

    private void work() {
      try {
        for (int[] block = blocks.take(); block.length > 0; block = blocks.take()) {
          long charge = block[1] + Task.CHARGE;
          for (int exchange = 0; exchange < 3; exchange++) {
            synchronized (this) {
              while (emitsUnderWay > 0 && emitsUnderWay + charge > emitWindow) {
                wait();
              }
              emitsUnderWay += charge;
            }
            emit(out, exchange, block[0], block[1]);
          }
          underWay.addAndGet(-charge);
          frame(out, 69, 8, o -> o.writeLong(charge));
        }
        frame(out, 67, 4, o -> o.writeInt(0));
      } catch (InterruptedException | IOException e) {
        closeQuietly(in); // so that the adapter's task fails
      }
    }
  }

  private static void closeQuietly(DataInputStream in) {
    try {
      in.close();
    } catch (IOException e) {
      // it is closed
    }
  }

  private interface Body {
    void write(DataOutputStream out) throws IOException;
  }

  private static void frame(DataOutputStream out, int type, int length, Body body)
      throws IOException {
    synchronized (out) {
      out.writeInt(1 + length);
      out.writeByte(type);
      body.write(out);
      out.flush();
    }
  }

  private static void emit(DataOutputStream out, int exchange, int keyGroup, int size)
      throws IOException {
    frame(
        out,
        66,
        8 + size,
        o -> {
          o.writeInt(exchange);
          o.writeInt(keyGroup);
          o.write(new byte[size]);
        });
  }

  /** Reads on to the next frame of this type; its number, if it has one. */
  private static long skip(DataInputStream in, int type) throws IOException {
    while (true) {
      int length = in.readInt();
      int got = in.readUnsignedByte();
      byte[] body = in.readNBytes(length - 1);
      if (got == type) {
        long number = 0;
        for (byte b : body) {
          number = number << 8 | b & 0xff;
        }
        return number;
      }
    }
  }

  private static void await(CountDownLatch latch) throws IOException {
    try {
      latch.await();
    } catch (InterruptedException e) {
      throw new IOException(e);
    }
  }
}
