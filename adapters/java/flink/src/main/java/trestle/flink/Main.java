package trestle.flink;

import java.util.Base64;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import trestle.core.Graph;

/** Runs a job of Trestle's. Its one argument is the submitted job (docs/formats/job.md) in base64. */
public final class Main {
  private Main() {}

  public static void main(String[] args) throws Exception {
    if (args.length != 1) {
      throw new IllegalArgumentException(
          "Trestle's adapter takes one argument, a job, which Trestle's server gives it");
    }
    Graph graph = Graph.decode(Base64.getDecoder().decode(args[0]));
    StreamExecutionEnvironment env =
        StreamExecutionEnvironment.getExecutionEnvironment(Translation.settings(graph));
    Translation.build(env, graph);
    env.execute(graph.name);
  }
}
