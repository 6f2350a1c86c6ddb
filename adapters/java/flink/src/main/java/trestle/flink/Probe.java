package trestle.flink;

import java.util.Base64;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * Looks at a cluster from where Trestle's tasks would run: a job with a task in each of the cluster's slots. Its arguments are
 * how many slots there are, and a package for the probe in base64.
 */
public final class Probe {
  private Probe() {}

  public static void main(String[] args) throws Exception {
    if (args.length != 2) {
      throw new IllegalArgumentException(
          "the probe takes two arguments, a number of slots and a package, which Trestle's server gives it");
    }
    Configuration settings = new Configuration();
    settings.setString("execution.runtime-mode", "STREAMING");
    StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(settings);
    build(env, Integer.parseInt(args[0]), Base64.getDecoder().decode(args[1]));
    env.execute("Trestle's probe");
  }

  /**
   * All tasks lead to one more, so that Flink starts none before there is a slot for each: a slot that was free again could
   * otherwise be used twice, and a TaskManager be left out. So Flink must have so many free slots, or it waits for them.
   */
  static void build(StreamExecutionEnvironment env, int slots, byte[] pack) {
    ProbeOperator.Factory probe = new ProbeOperator.Factory(pack);
    env.fromSource(new EmptySource(), WatermarkStrategy.noWatermarks(), "start", BlockType.INSTANCE)
        .setParallelism(slots)
        .transform("probe", BlockType.INSTANCE, probe)
        .setParallelism(slots)
        .rebalance()
        .sinkTo(new DiscardingSink<>())
        .setParallelism(1)
        .name("end");
  }
}
