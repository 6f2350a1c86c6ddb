package trestle.flink;

import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.stream.IntStream;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.MultipleConnectedStreams;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.transformations.MultipleInputTransformation;
import trestle.core.Graph;

/** Builds Flink's job from a graph: an operator for each stage, a side output for each exchange. */
final class Translation {
  /** Flink cuts longer names in its metrics, and its pages become unreadable. */
  static final int LONGEST_NAME = 80;

  /** Flink selects among inputs by the bits of a long. */
  static final int MOST_INPUTS = 64;

  /**
   * What the worker gets unread. A job's configuration is in it whatever the number of stages, and is sent to each TaskManager once,
   * where what an operator knows travels with each of its tasks.
   */
  private static final String JOB = "trestle.job";

  private final StreamExecutionEnvironment env;
  private final Graph graph;
  private final int parallelism;
  private final List<SingleOutputStreamOperator<Block>> built = new ArrayList<>();

  private Translation(StreamExecutionEnvironment env, Graph graph) {
    this.env = env;
    this.graph = graph;
    parallelism = graph.parallelism > 0 ? graph.parallelism : env.getParallelism();
  }

  /** The graph's settings, and what bounded jobs need of Flink whatever those say. */
  static Configuration settings(Graph graph) {
    Configuration settings = new Configuration();
    graph.settings.forEach(settings::setString);
    settings.setString("pipeline.max-parallelism", Integer.toString(graph.keyGroups));
    settings.setString("execution.runtime-mode", "BATCH");
    // What a task sends is kept until its receivers have read it: they need not run yet, and one that fails reads it again.
    settings.setString("execution.batch-shuffle-mode", "ALL_EXCHANGES_BLOCKING");
    // Grouping is the worker's. Flink would sort blocks.
    settings.setString("execution.sorted-inputs.enabled", "false");
    settings.setString("execution.batch-state-backend.enabled", "false");
    // Blocks are immutable.
    settings.setString("pipeline.object-reuse", "true");
    // A worker is told a stage's parallelism when its tasks open, and key groups are spread by it.
    settings.setString("execution.batch.adaptive.auto-parallelism.enabled", "false");
    // Settings are text on their way through Flink's environments.
    settings.setString(JOB, Base64.getEncoder().encodeToString(graph.job));
    return settings;
  }

  /** The job for the worker, out of the configuration of Flink's job. */
  static byte[] job(Configuration configuration) {
    return Base64.getDecoder().decode(configuration.getString(JOB, ""));
  }

  /**
   * Adds the graph's stages to an environment that was made with its {@link #settings}.
   *
   * @throws IllegalArgumentException when Flink cannot run such a graph
   */
  static void build(StreamExecutionEnvironment env, Graph graph) {
    Translation translation = new Translation(env, graph);
    translation.check();
    for (int i = 0; i < graph.stages.size(); i++) {
      translation.stage(i);
    }
  }

  private void check() {
    if (parallelism > graph.keyGroups) {
      throw new IllegalArgumentException(
          "the parallelism is " + parallelism + ", and a job has " + graph.keyGroups
              + " key groups: no more tasks than that can share the keys");
    }
  }

  private void stage(int index) {
    Graph.Stage stage = graph.stages.get(index);
    int tasks = tasks(index);
    SortedMap<Integer, DataStream<Block>> inputs = inputs(index);
    inputs.computeIfAbsent(0, main -> source(stage, tasks));
    if (inputs.size() > MOST_INPUTS) {
      throw new IllegalArgumentException(
          "stage " + stage.name + " has " + (inputs.size() - 1) + " side inputs, and Flink allows "
              + (MOST_INPUTS - 1));
    }
    StageSpec spec =
        new StageSpec(
            index,
            shortened(stage.name),
            inputs.keySet().stream().mapToInt(Integer::intValue).toArray(),
            IntStream.rangeClosed(1, stage.sideInputs).filter(i -> !inputs.containsKey(i)).toArray(),
            graph.exchanges.stream().filter(e -> e.from == index).mapToInt(e -> e.id).toArray(),
            parallelism);
    MultipleInputTransformation<Block> operator =
        new MultipleInputTransformation<>(
            spec.name, new StageOperatorFactory(spec), BlockType.INSTANCE, tasks);
    operator.setUid(stage.uid);
    inputs.values().forEach(input -> operator.addInput(input.getTransformation()));
    env.addOperator(operator);
    built.add(new MultipleConnectedStreams(env).transform(operator));
  }

  /** What arrives at each input of a stage: all exchanges of one input are one stream, which ends with the last of them. */
  private SortedMap<Integer, DataStream<Block>> inputs(int stage) {
    SortedMap<Integer, DataStream<Block>> inputs = new TreeMap<>();
    for (Graph.Exchange exchange : graph.exchanges) {
      if (exchange.to == stage) {
        inputs.merge(exchange.input, stream(exchange), DataStream::union);
      }
    }
    return inputs;
  }

  private DataStream<Block> stream(Graph.Exchange exchange) {
    DataStream<Block> sent = built.get(exchange.from).getSideOutput(StageSpec.output(exchange.id));
    switch (exchange.kind) {
      case FORWARD:
        return tasks(exchange.from) == tasks(exchange.to) ? sent.forward() : sent.rebalance();
      case REBALANCE:
        return sent.rebalance();
      case KEYED:
        KeyGroups keyGroups = new KeyGroups(graph.keyGroups);
        return sent.partitionCustom(keyGroups, keyGroups);
      case BROADCAST:
        return sent.broadcast();
      default:
        throw new IllegalStateException(exchange.kind.toString());
    }
  }

  private DataStream<Block> source(Graph.Stage stage, int tasks) {
    return env.fromSource(
            new EmptySource(), WatermarkStrategy.noWatermarks(), "start", BlockType.INSTANCE)
        .setParallelism(tasks)
        .uid(stage.uid + "-start");
  }

  private int tasks(int stage) {
    return graph.stages.get(stage).single ? 1 : parallelism;
  }

  private static String shortened(String name) {
    return name.length() <= LONGEST_NAME ? name : name.substring(0, LONGEST_NAME - 1) + "…";
  }
}
