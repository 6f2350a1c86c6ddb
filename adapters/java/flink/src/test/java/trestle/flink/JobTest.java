package trestle.flink;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowable;

import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.flink.api.common.JobExecutionResult;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.runtime.client.JobCancellationException;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.ExceptionUtils;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import trestle.core.Graph;
import trestle.core.Graph.Kind;

/** Whole jobs in Flink's MiniCluster, against a fake worker in a process of its own. */
@Timeout(300)
final class JobTest {
  private static MiniCluster cluster;
  private static URI rest;

  @BeforeAll
  static void start() throws Exception {
    Configuration settings = new Configuration();
    settings.setString("rest.port", "0");
    settings.setString("rest.address", "localhost");
    settings.setString("taskmanager.memory.network.min", "32m");
    settings.setString("taskmanager.memory.network.max", "32m");
    cluster =
        new MiniCluster(
            new MiniClusterConfiguration.Builder()
                .setConfiguration(settings)
                .setNumTaskManagers(2)
                .setNumSlotsPerTaskManager(2)
                .build());
    cluster.start();
    rest = cluster.getRestAddress().get();
  }

  @AfterAll
  static void stop() throws Exception {
    cluster.close();
  }

  @Test
  void everyBlockOfEveryExchangeArrives() throws Exception {
    Graph graph =
        new Submission(3)
            .single("make", 0)
            .stage("pass", 0)
            .stage("keyed", 1)
            .single("end", 0)
            .exchange(Kind.REBALANCE, 0, 1, 0) // 0
            .exchange(Kind.KEYED, 1, 2, 0) // 10
            .exchange(Kind.BROADCAST, 0, 2, 1) // 20
            .exchange(Kind.FORWARD, 2, 3, 0) // 30
            .exchange(Kind.REBALANCE, 1, 3, 0) // 40
            .graph(
                "stage.0=make 1280 2000 0 20", "stage.1=pass 10 40", "stage.2=pass 30", "stage.3=pass",
                "tasks=2"); // of three, in two slots
    Map<String, String> reports = reports(run(graph));
    assertThat(reports.get("trestle/0/0")).isEqualTo("attempt=0");
    // 1280 blocks of each of the key groups 0 to 127 ten times.
    assertThat(sum(reports, "trestle/1/", "0")).isEqualTo("1280/2560000/81280");
    assertThat(sum(reports, "trestle/2/", "0")).isEqualTo("1280/2560000/81280");
    assertThat(reports.get("trestle/3/0")).isEqualTo("attempt=0 0=2560/5120000/162560");
    for (int task = 0; task < 3; task++) {
      // The side input comes first, whole, and of the keys 0 to 42, 43 to 85, 86 to 127.
      long keyGroups = new long[] {9030, 27520, 44730}[task];
      long blocks = task == 2 ? 420 : 430;
      assertThat(reports.get("trestle/2/" + task))
          .isEqualTo("attempt=0 1=1280/2560000/81280 0=%d/%d/%d", blocks, blocks * 2000, keyGroups);
    }
  }

  @Test
  void aRootMayHaveSideInputsAndManyTasks() throws Exception {
    Graph graph =
        new Submission(2)
            .single("make", 0)
            .stage("root", 2)
            .single("end", 0)
            .exchange(Kind.BROADCAST, 0, 1, 2)
            .exchange(Kind.REBALANCE, 1, 2, 0)
            .graph("stage.0=make 5 10 0", "stage.1=make 7 10 10");
    Map<String, String> reports = reports(run(graph));
    assertThat(reports)
        .containsEntry("trestle/1/0", "attempt=0 2=5/50/10")
        .containsEntry("trestle/1/1", "attempt=0 2=5/50/10")
        .containsEntry("trestle/2/0", "attempt=0 0=7/70/21");
  }

  @Test
  void aTaskThatFailsSaysSoInTheWorkersWords() throws Exception {
    Graph graph =
        new Submission(1)
            .setting("restart-strategy.type", "none")
            .single("a stage", 0)
            .graph("stage.0=fail 0 user code\\\\n  at line 3", "tasks=1");
    Throwable failure = failure(graph);
    assertThat(failure).isInstanceOf(TaskFailed.class);
    assertThat(failure.getMessage())
        .matches(
            "user code\n  at line 3\n\\[trestle: stage a stage, task 1 of 1, host [^ ]+, worker \\d+]");
    assertThat(failure.getStackTrace()).isEmpty();
  }

  @Test
  void aTaskThatFailsIsTriedAgain() throws Exception {
    Graph graph =
        new Submission(1)
            .setting("restart-strategy.type", "fixed-delay")
            .setting("restart-strategy.fixed-delay.attempts", "3")
            .setting("restart-strategy.fixed-delay.delay", "10 ms")
            .single("make", 0)
            .stage("fail", 0)
            .exchange(Kind.REBALANCE, 0, 1, 0)
            .graph("stage.0=make 10 10 0", "stage.1=fail-once 0 for now");
    assertThat(reports(run(graph))).containsEntry("trestle/1/0", "attempt=1 0=10/100/45");
  }

  @Test
  void aJobThatIsHopelessIsNotTriedAgain() throws Exception {
    Graph graph =
        new Submission(1)
            .setting("restart-strategy.type", "fixed-delay")
            .setting("restart-strategy.fixed-delay.attempts", "1000")
            .setting("restart-strategy.fixed-delay.delay", "10 ms")
            .single("fail", 0)
            .graph("stage.0=fail-once 1 for good");
    Throwable failure = failure(graph);
    assertThat(failure).isInstanceOf(JobFailed.class).hasMessageStartingWith("for good\n[trestle: ");
  }

  @Test
  void aJobCanBeCancelledWhateverItsTasksWaitFor() throws Exception {
    Graph graph = new Submission(2).stage("hang", 0).graph("stage.0=hang");
    StreamExecutionEnvironment env = environment(Translation.settings(graph));
    Translation.build(env, graph);
    JobClient job = env.executeAsync(graph.name);
    while (ProcessHandle.current().descendants().count() == 0) { // the tasks wait from then on, for this or that
      assertThat(job.getJobStatus().get()).isIn(JobStatus.CREATED, JobStatus.RUNNING);
      Thread.onSpinWait();
    }
    long start = System.nanoTime();
    job.cancel().get();
    assertThat(catchThrowable(() -> job.getJobExecutionResult().get()))
        .hasRootCauseInstanceOf(JobCancellationException.class);
    assertThat(System.nanoTime() - start).isLessThan(TimeUnit.SECONDS.toNanos(60));
  }

  @Test
  void aWorkerThatDiesSaysWithWhichStatusAndWhatItLogged() throws Exception {
    Graph graph =
        new Submission(1)
            .setting("restart-strategy.type", "none")
            .single("die", 0)
            .graph("stage.0=die 9");
    assertThat(failure(graph))
        .isInstanceOf(TaskFailed.class)
        .hasMessageContainingAll("is gone: it ended with exit status 9", "dying as told");
  }

  @Test
  void aWorkerThatDoesNotStartSaysWhy() throws Exception {
    Graph graph =
        new Submission(1)
            .setting("restart-strategy.type", "none")
            .single("never", 0)
            .graph("refuse=no such plan");
    assertThat(failure(graph))
        .isInstanceOf(TaskFailed.class)
        .hasMessageContainingAll(
            "could not start: ended with exit status 3. Its last lines:\nno such plan",
            "[trestle: stage never, task 1 of 1, host ", ", worker none]");
  }

  @Test
  void eachSlotIsProbed() throws Exception {
    StreamExecutionEnvironment env = environment(new Configuration());
    Probe.build(env, 3, "looking glass".getBytes(StandardCharsets.UTF_8));
    Map<String, String> reports = reports(env.execute());
    assertThat(reports).containsOnlyKeys("trestle/probe/0", "trestle/probe/1", "trestle/probe/2");
    assertThat(reports.values())
        .allMatch(
            r ->
                r.matches(
                    "\\{\"host\":\".+\",\"report\":\\{\"pack\":\"looking glass\",\"pid\":\\d+,\"folder\":true}}"))
        .doesNotHaveDuplicates();
  }

  @AfterEach
  void noWorkerIsLeft() throws Exception {
    for (ProcessHandle worker : ProcessHandle.current().descendants().collect(Collectors.toList())) {
      worker.onExit().get(60, TimeUnit.SECONDS);
    }
  }

  /** As a client has it: jobs go through Flink's REST API. */
  private static StreamExecutionEnvironment environment(Configuration settings) {
    return StreamExecutionEnvironment.createRemoteEnvironment(
        rest.getHost(), rest.getPort(), settings);
  }

  private static JobExecutionResult run(Graph graph) throws Exception {
    StreamExecutionEnvironment env = environment(Translation.settings(graph));
    Translation.build(env, graph);
    return env.execute(graph.name);
  }

  private static Throwable failure(Graph graph) {
    Throwable thrown = catchThrowable(() -> run(graph));
    assertThat(thrown).isNotNull();
    Throwable root =
        ExceptionUtils.findThrowable(thrown, t -> t instanceof TaskFailed || t instanceof JobFailed)
            .orElse(thrown);
    return root;
  }

  private static Map<String, String> reports(JobExecutionResult result) {
    Map<String, String> reports = new TreeMap<>();
    result
        .getAllAccumulatorResults()
        .forEach(
            (name, value) ->
                reports.put(
                    name,
                    new String(
                        Base64.getDecoder().decode((String) value), StandardCharsets.UTF_8)));
    return reports;
  }

  /** The sums of what all tasks of a stage say about an input. */
  private static String sum(Map<String, String> reports, String prefix, String input) {
    long[] sums = new long[3];
    reports.forEach(
        (name, report) -> {
          for (String word : report.split(" ")) {
            if (name.startsWith(prefix) && word.startsWith(input + "=")) {
              String[] numbers = word.substring(input.length() + 1).split("/");
              for (int i = 0; i < sums.length; i++) {
                sums[i] += Long.parseLong(numbers[i]);
              }
            }
          }
        });
    return sums[0] + "/" + sums[1] + "/" + sums[2];
  }
}
