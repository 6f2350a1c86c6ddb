package trestle.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A worker's process from its start to its end, with a script in its place. */
@Timeout(180)
final class WorkerTest {
  private static final byte[] JOB = "the job, unread".getBytes(StandardCharsets.UTF_8);

  @TempDir Path dir;
  private Peer peer;

  @BeforeEach
  void listen() throws Exception {
    peer = new Peer((in, out, credit) -> {});
  }

  @AfterEach
  void nothingIsLeft() throws Exception {
    peer.close();
    for (ProcessHandle left : ProcessHandle.current().children().collect(Collectors.toList())) {
      left.onExit().get(60, TimeUnit.SECONDS);
    }
  }

  @Test
  void itGetsItsJobAndEndsWithItsInput() throws Exception {
    // dd reads what the script does not have to understand: a length of four bytes and the job.
    Script script =
        new Script(
            dir,
            "dd bs=1 count=" + (4 + JOB.length) + " of=$1/job 2>/dev/null",
            Script.address(peer.port()),
            "cat >/dev/null; echo ended by itself >$1/end");
    Worker worker = Worker.start(script.command(), JOB, Script.PATIENT);
    assertThat(Files.readAllBytes(dir.resolve("job")))
        .startsWith(0, 0, 0, JOB.length)
        .endsWith(JOB)
        .hasSize(4 + JOB.length);
    assertThat(worker.alive()).isTrue();
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElseThrow();
    worker.stop();
    assertThat(worker.alive()).isFalse();
    process.onExit().get(60, TimeUnit.SECONDS);
    assertThat(dir.resolve("end")).hasContent("ended by itself");
    assertThat(peer.wrong).isEmpty();
  }

  @Test
  void oneThatDoesNotEndIsTerminated() throws Exception {
    Script script =
        new Script(
            dir,
            "trap 'echo terminated >$1/end; exit' TERM",
            Script.address(peer.port()),
            "while :; do sleep 0.05; done");
    Limits limits = // of which the second such time has to be enough for the trap
        new Limits(
            Script.PATIENT.start,
            Script.PATIENT.beat,
            Script.PATIENT.hang,
            Duration.ofSeconds(4),
            Script.PATIENT.dying,
            Script.PATIENT.idle);
    Worker worker = Worker.start(script.command(), JOB, limits);
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElseThrow();
    worker.stop();
    process.onExit().get(60, TimeUnit.SECONDS);
    assertThat(dir.resolve("end")).hasContent("terminated");
  }

  @Test
  void oneThatDoesNotEndEvenThenIsKilled() throws Exception {
    Script script =
        new Script(
            dir, "trap '' TERM", Script.address(peer.port()), "while :; do sleep 0.05; done");
    Worker worker = Worker.start(script.command(), JOB, Script.SHORT_END);
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElseThrow();
    worker.stop();
    process.onExit().get(60, TimeUnit.SECONDS);
    assertThat(worker.postMortem()).contains("was killed (exit status 137)");
  }

  @Test
  void oneThatHangsIsKilledForThat() throws Exception {
    Script script = new Script(dir, Script.address(peer.port()), "echo busy >&2; cat >/dev/null");
    Worker worker = Worker.start(script.command(), JOB, Script.SHORT_HANG);
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElseThrow();
    while (peer.pings < 3) {
      assertThat(worker.alive()).isTrue();
      Thread.onSpinWait();
    }
    peer.deaf = true;
    process.onExit().get(60, TimeUnit.SECONDS);
    assertThat(worker.postMortem()) // waits until this process knows of the end, too
        .matches(
            "Trestle's worker \\d+ on [^ ]+ is gone: it was killed because it did not answer for 2 s\\."
                + " Its last lines:\nbusy");
    assertThat(worker.alive()).isFalse();
  }

  @Test
  void oneThatGivesUpMayEndInOrder() throws Exception {
    Script script =
        new Script(
            dir,
            Script.address(peer.port()),
            "cat >/dev/null; echo cleaned up >$1/end; echo out of luck >&2; exit 5");
    Worker worker = Worker.start(script.command(), JOB, Script.PATIENT);
    while (peer.pings < 1) {
      assertThat(worker.alive()).isTrue();
      Thread.onSpinWait();
    }
    peer.close(); // as a worker that gives up closes its connections first
    assertThat(worker.postMortem())
        .contains("is gone: it ended with exit status 5. Its last lines:\nout of luck");
    assertThat(worker.alive()).isFalse();
    assertThat(dir.resolve("end")).hasContent("cleaned up");
  }

  @Test
  void oneThatEndsByItselfSaysWithWhichStatus() throws Exception {
    Script script =
        new Script(dir, Script.address(peer.port()), "seq 1 60 >&2; read nothing; exit 7");
    Worker worker = Worker.start(script.command(), JOB, Script.PATIENT);
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElseThrow();
    worker.stop();
    process.onExit().get(60, TimeUnit.SECONDS);
    assertThat(worker.postMortem())
        .contains("is gone: it ended with exit status 7. Its last lines:\n11\n12\n")
        .endsWith("\n59\n60");
  }

  @Test
  void oneThatNobodyUsesEndsInOrder() throws Exception {
    Script script =
        new Script(dir, Script.address(peer.port()), "cat >/dev/null; echo cleaned up >$1/end");
    Worker worker = Worker.start(script.command(), JOB, Script.SHORT_IDLE);
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElseThrow();
    assertThat(worker.claim()).isTrue();
    worker.release(); // one of two
    for (int before = peer.pings; peer.pings < before + 20; ) {
      assertThat(worker.alive()).isTrue();
      Thread.onSpinWait();
    }
    worker.release();
    process.onExit().get(60, TimeUnit.SECONDS);
    assertThat(dir.resolve("end")).hasContent("cleaned up");
    assertThat(worker.alive()).isFalse();
    assertThat(worker.claim()).isFalse();
  }

  @Test
  void oneThatHasBeenIdleForAShortTimeStays() throws Exception {
    Script script = new Script(dir, Script.address(peer.port()), "cat >/dev/null");
    Worker worker = Worker.start(script.command(), JOB, Script.PATIENT);
    worker.release();
    while (peer.pings < 20) {
      assertThat(worker.alive()).isTrue();
      Thread.onSpinWait();
    }
    assertThat(worker.claim()).isTrue();
    ProcessHandle process = ProcessHandle.of(worker.pid()).orElseThrow();
    worker.stop();
    process.onExit().get(60, TimeUnit.SECONDS);
  }

  @Test
  void oneThatCannotStartSaysWhy() throws Exception {
    Script script = new Script(dir, "echo the disk is full >&2; exit 3");
    assertThat(failure(script, Script.PATIENT))
        .matches(
            "Trestle's worker \\d+ on [^ ]+ could not start: ended with exit status 3\\. Its last"
                + " lines:\nthe disk is full");
  }

  @Test
  void oneThatSaysNonsenseIsRefused() throws Exception {
    Script script = new Script(dir, "echo trestle-worker 2 80 " + Script.TOKEN, "cat >/dev/null");
    assertThat(failure(script, Script.SHORT_DYING))
        .contains(
            "could not start: it said \"trestle-worker 2 80 "
                + Script.TOKEN
                + "\" where its address should be. It logged nothing.");
  }

  @Test
  void oneThatNeverListensIsGivenUp() throws Exception {
    Script script = new Script(dir, "echo waiting for a lock >&2", "cat >/dev/null");
    Limits impatient =
        new Limits(
            Duration.ofSeconds(5),
            Script.PATIENT.beat,
            Script.PATIENT.hang,
            Script.PATIENT.end,
            Script.PATIENT.dying,
            Script.PATIENT.idle);
    assertThat(failure(script, impatient))
        .contains("did not start within 5 s. Its last lines:\nwaiting for a lock");
  }

  @Test
  void oneThatIsNotThereIsNamed() {
    FailedException e =
        catchThrowableOfType(
            FailedException.class,
            () -> Worker.start(List.of("/nowhere/trestle"), JOB, Script.PATIENT));
    assertThat(e.hopeless()).isFalse();
    assertThat(e)
        .hasMessageContainingAll(
            "Trestle's worker could not be started on " + Host.name(), "/nowhere/trestle");
  }

  private static String failure(Script script, Limits limits) {
    FailedException e =
        catchThrowableOfType(
            FailedException.class, () -> Worker.start(script.command(), JOB, limits));
    assertThat(e.hopeless()).isFalse();
    return e.getMessage();
  }
}
