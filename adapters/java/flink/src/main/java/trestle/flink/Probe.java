package trestle.flink;

import java.util.Base64;
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
    StreamExecutionEnvironment env =
        StreamExecutionEnvironment.getExecutionEnvironment(Translation.settings());
    build(env, Integer.parseInt(args[0]), Base64.getDecoder().decode(args[1]));
    env.execute("Trestle's probe");
  }

  /** Each task is asked for at once, and each gets a slot of its own as far as there are free ones. */
  static void build(StreamExecutionEnvironment env, int slots, byte[] pack) {
    env.fromSource(new EmptySource(), WatermarkStrategy.noWatermarks(), "start", BlockType.INSTANCE)
        .setParallelism(slots)
        .transform("probe", BlockType.INSTANCE, new ProbeOperator.Factory(pack))
        .setParallelism(slots);
  }
}
