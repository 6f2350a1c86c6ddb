import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** A small job of Flink's own, of one source for all versions: it proves a cluster before a test of ours blames it. */
public class Smoke {
  public static void main(String[] arguments) throws Exception {
    StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
    env.setRuntimeMode(RuntimeExecutionMode.BATCH);
    env.fromSequence(1, Long.parseLong(arguments[0])).keyBy(n -> n % 100).reduce(Long::sum).print();
    env.execute("smoke");
  }
}
