package trestle.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Who gets which worker, with a script in the worker's place. */
@Timeout(180)
final class WorkersTest {
  private static final byte[] JOB = "the job, unread".getBytes(StandardCharsets.UTF_8);

  private static final Task.Output NONE =
      new Task.Output() {
        @Override
        public void emit(int exchange, int keyGroup, byte[] block) {}

        @Override
        public void report(byte[] report) {}
      };

  @TempDir Path dir;
  private final Set<Long> started = ConcurrentHashMap.newKeySet();
  private Peer peer;
  private Script script;
  private final ExecutorService threads = Executors.newCachedThreadPool();
  private volatile boolean refuses;

  @BeforeEach
  void listen() throws Exception {
    peer = new Peer(this::serve);
    script = new Script(dir, Script.address(peer.port()), "cat >/dev/null");
  }

  @AfterEach
  void nothingIsLeft() throws Exception {
    threads.shutdownNow();
    Workers.stop(JOB);
    for (ProcessHandle left : ProcessHandle.current().children().collect(Collectors.toList())) {
      left.onExit().get(60, TimeUnit.SECONDS);
    }
    peer.close();
    assertThat(peer.wrong).isEmpty();
  }

  /** A task that is opened and closed, or fails. */
  private void serve(DataInputStream in, DataOutputStream out, long credit) throws IOException {
    if (refuses) {
      out.writeInt(4);
      out.writeByte(70);
      out.writeByte(0);
      out.writeBytes("no");
    } else {
      out.writeInt(9);
      out.writeByte(65);
      out.writeLong(1000);
    }
    in.readInt();
    in.readUnsignedByte();
    out.writeInt(1);
    out.writeByte(71);
  }

  private Worker get(Limits limits) throws Exception {
    return Workers.get(
        JOB,
        () -> {
          Worker worker = Worker.start(script.command(), JOB, limits);
          started.add(worker.pid());
          return worker;
        });
  }

  private static Task open(Worker worker) throws Exception {
    return Task.open(worker, 1, 2, 3, 0, NONE, () -> {});
  }

  @Test
  void tasksShareOneAndALateOneFindsItStill() throws Exception {
    Worker first = get(Script.PATIENT);
    Task task = open(first);
    assertThat(get(Script.PATIENT)).isSameAs(first);
    Task other = open(first);
    task.close();
    task.close(); // counts once
    other.close();
    assertThat(get(Script.PATIENT)).isSameAs(first);
    open(first).close();
    assertThat(started).hasSize(1);
  }

  @Test
  void oneThatHasEndedForWantOfTasksIsReplaced() throws Exception {
    Worker first = get(Script.SHORT_IDLE);
    ProcessHandle process = ProcessHandle.of(first.pid()).orElseThrow();
    open(first).close();
    process.onExit().get(60, TimeUnit.SECONDS);
    Worker second = get(Script.SHORT_IDLE);
    assertThat(second).isNotSameAs(first);
    open(second).close();
    assertThat(started).hasSize(2);
  }

  @Test
  void oneWhoseTaskCannotBeOpenedIsNotInUse() throws Exception {
    Worker worker = get(Script.SHORT_IDLE);
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElseThrow();
    refuses = true;
    assertThatThrownBy(() -> open(worker)).isInstanceOf(FailedException.class).hasMessage("no");
    process.onExit().get(60, TimeUnit.SECONDS);
  }

  @Test
  void noJobWaitsForAnothersWorkerToStart() throws Exception {
    Worker first = get(Script.PATIENT);
    CountDownLatch starting = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    byte[] other = "another job".getBytes(StandardCharsets.UTF_8);
    Future<Worker> second =
        threads.submit(
            () ->
                Workers.get(
                    other,
                    () -> {
                      starting.countDown();
                      go.await();
                      return Worker.start(script.command(), other, Script.PATIENT);
                    }));
    starting.await();
    assertThat(threads.submit(() -> get(Script.PATIENT)).get(60, TimeUnit.SECONDS)).isSameAs(first);
    threads.submit(() -> Workers.stop(JOB)).get(60, TimeUnit.SECONDS);
    assertThat(first.alive()).isFalse();
    go.countDown();
    assertThat(second.get(60, TimeUnit.SECONDS).alive()).isTrue();
    Workers.stop(other);
    assertThat(second.get().alive()).isFalse();
  }

  @Test
  void oneThatIsStoppedAsItStartsEndsOnceItHas() throws Exception {
    CountDownLatch starting = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    CompletableFuture<Worker> started = new CompletableFuture<>();
    Future<Worker> got =
        threads.submit(
            () ->
                Workers.get(
                    JOB,
                    () -> {
                      starting.countDown();
                      go.await();
                      Worker worker = Worker.start(script.command(), JOB, Script.PATIENT);
                      started.complete(worker);
                      return worker;
                    }));
    starting.await();
    threads.submit(() -> Workers.stop(JOB)).get(60, TimeUnit.SECONDS);
    go.countDown();
    assertThatThrownBy(() -> got.get(60, TimeUnit.SECONDS))
        .hasRootCauseInstanceOf(FailedException.class)
        .hasRootCauseMessage(
            "the engine gave the job up on " + Host.name() + " while its worker was started");
    assertThat(started.get().alive()).isFalse();
  }

  /**
   * Workers end whenever a beat finds them without a task, and tasks come at just that moment: none
   * may be the one that finds its worker ending.
   */
  @Test
  void aTaskThatComesAsOneEndsGetsAnother() throws Exception {
    Random random = new Random(1);
    while (started.size() < 30) {
      Worker worker = get(Script.SHORT_IDLE);
      Task task = open(worker);
      assertThat(worker.alive()).isTrue();
      int before = peer.pings;
      task.close();
      while (worker.alive() && peer.pings == before) { // what a worker's end follows
        Thread.onSpinWait();
      }
      for (int i = random.nextInt(5000); i > 0; i--) {
        Thread.onSpinWait();
      }
    }
  }
}
