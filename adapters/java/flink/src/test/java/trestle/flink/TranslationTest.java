package trestle.flink;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.io.network.partition.ResultPartitionType;
import org.apache.flink.runtime.jobgraph.JobEdge;
import org.apache.flink.runtime.jobgraph.JobGraph;
import org.apache.flink.runtime.jobgraph.JobVertex;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.graph.StreamGraph;
import org.apache.flink.streaming.api.graph.StreamNode;
import org.apache.flink.util.InstantiationUtil;
import org.junit.jupiter.api.Test;
import trestle.core.Graph;
import trestle.core.Graph.Kind;

/** The shape of Flink's job. */
final class TranslationTest {
  @Test
  void eachStageIsAVertexAndEachExchangeAnEdge() throws IOException {
    JobGraph job =
        translate(
            new Submission(4)
                .single("read", 0)
                .stage("split", 0)
                .stage("count", 1)
                .stage("format", 0)
                .single("write", 0)
                .exchange(Kind.FORWARD, 0, 1, 0) // of other parallelism
                .exchange(Kind.KEYED, 1, 2, 0)
                .exchange(Kind.BROADCAST, 0, 2, 1)
                .exchange(Kind.FORWARD, 2, 3, 0)
                .exchange(Kind.REBALANCE, 3, 4, 0)
                .graph());
    assertThat(edges(job))
        .containsExactlyInAnyOrder(
            "read [Source: start] 1 -REBALANCE> split 4",
            "split 4 -CUSTOM> count 4",
            "read [Source: start] 1 -BROADCAST> count 4",
            "count 4 -FORWARD> format 4",
            "format 4 -REBALANCE> write 1");
    assertThat(job.getVertices()).allMatch(v -> v.getMaxParallelism() == 128);
    for (JobVertex vertex : job.getVertices()) {
      assertThat(vertex.getProducedDataSets())
          .allMatch(d -> d.getResultType() == ResultPartitionType.BLOCKING);
    }
  }

  @Test
  void theSameUidsComeOfTheSameStages() throws IOException {
    Graph graph =
        new Submission(4)
            .single("read", 0)
            .stage("split", 0)
            .exchange(Kind.REBALANCE, 0, 1, 0)
            .graph();
    StreamExecutionEnvironment env = environment(graph);
    Translation.build(env, graph);
    StreamGraph streams = env.getStreamGraph();
    assertThat(streams.getStreamNodes().stream().map(StreamNode::getTransformationUID))
        .containsExactlyInAnyOrder("uid-0-start", "uid-0", "uid-1");
    assertThat(streams.getCheckpointConfig().isCheckpointingEnabled()).isFalse();
  }

  @Test
  void aFlattenOfManyIsOneInput() throws IOException {
    Submission many = new Submission(2);
    for (int i = 0; i < 100; i++) {
      many.single("read " + i, 0);
    }
    many.stage("flatten", 0);
    for (int i = 0; i < 100; i++) {
      many.exchange(Kind.REBALANCE, i, 100, 0);
    }
    assertThat(edges(translate(many.graph()))).hasSize(100);
  }

  @Test
  void twoExchangesMayJoinTheSameStages() throws IOException {
    JobGraph job =
        translate(
            new Submission(2)
                .single("read", 0)
                .stage("twice", 0)
                .exchange(Kind.REBALANCE, 0, 1, 0)
                .exchange(Kind.REBALANCE, 0, 1, 0)
                .graph());
    assertThat(edges(job)).hasSize(2);
  }

  @Test
  void theDefaultParallelismIsFlinks() throws IOException {
    Graph graph =
        new Submission(0)
            .stage("many", 0)
            .single("one", 0)
            .exchange(Kind.REBALANCE, 0, 1, 0)
            .setting("parallelism.default", "7")
            .graph();
    assertThat(edges(translate(graph)))
        .containsExactly("many [Source: start] 7 -REBALANCE> one 1");
  }

  @Test
  void aLongNameIsCut() throws IOException {
    JobGraph job = translate(new Submission(1).single("long ".repeat(20), 0).graph());
    JobVertex vertex = job.getVertices().iterator().next();
    assertThat(vertex.getName()).isEqualTo("long ".repeat(20).substring(0, 79) + "… [Source: start]");
  }

  /** A plan may have megabytes of user code and data, and many stages. */
  @Test
  void stagesDoNotCarryTheWorkersJob() throws IOException {
    String large = "x".repeat(1 << 20);
    Submission stages = new Submission(1).stage("0", 0);
    JobGraph one = translate(stages.graph(large));
    for (int stage = 1; stage < 8; stage++) {
      stages.stage(Integer.toString(stage), 0).exchange(Kind.REBALANCE, stage - 1, stage, 0);
    }
    JobGraph eight = translate(stages.graph(large));
    assertThat(size(eight) - size(one)).isLessThan(1 << 18);
    assertThat(Translation.job(eight.getJobConfiguration())).hasSize(large.length());
  }

  private static int size(JobGraph job) throws IOException {
    return InstantiationUtil.serializeObject(job).length;
  }

  @Test
  void whatFlinkCannotRunIsRefused() throws IOException {
    Graph wide = new Submission(129).stage("wide", 0).graph();
    assertThatIllegalArgumentException()
        .isThrownBy(() -> translate(wide))
        .withMessage(
            "the parallelism is 129, and a job has 128 key groups: no more tasks than that can share the keys");
    Submission sides = new Submission(1).single("read", 0).stage("views", 64);
    for (int side = 1; side <= 64; side++) {
      sides.exchange(Kind.BROADCAST, 0, 1, side);
    }
    Graph many = sides.graph();
    assertThatIllegalArgumentException()
        .isThrownBy(() -> translate(many))
        .withMessage("stage views has 64 side inputs, and Flink allows 63");
  }

  private static JobGraph translate(Graph graph) {
    StreamExecutionEnvironment env = environment(graph);
    Translation.build(env, graph);
    return env.getStreamGraph().getJobGraph();
  }

  /** As on a cluster that would take checkpoints of everything and decide about parallelism. */
  private static StreamExecutionEnvironment environment(Graph graph) {
    Configuration settings = new Configuration();
    settings.setString("execution.checkpointing.interval", "10 s");
    settings.setString("execution.batch.adaptive.auto-parallelism.enabled", "true");
    settings.addAll(Translation.settings(graph));
    return StreamExecutionEnvironment.createLocalEnvironment(settings);
  }

  private static List<String> edges(JobGraph job) {
    List<String> edges = new ArrayList<>();
    for (JobVertex vertex : job.getVertices()) {
      for (JobEdge edge : vertex.getInputs()) {
        edges.add(
            name(edge.getSource().getProducer()) + " -" + edge.getShipStrategyName() + "> " + name(vertex));
      }
    }
    return edges.stream().sorted().collect(Collectors.toList());
  }

  private static String name(JobVertex vertex) {
    return vertex.getName() + " " + vertex.getParallelism();
  }
}
