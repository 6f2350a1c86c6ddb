package trestle.flink;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import trestle.core.Graph;

/** Writes a submitted job's graph as the job server does. */
final class Submission {
  private static final int SINGLE = 1;

  private final ByteArrayOutputStream stages = new ByteArrayOutputStream();
  private final ByteArrayOutputStream exchanges = new ByteArrayOutputStream();
  private final ByteArrayOutputStream settings = new ByteArrayOutputStream();
  private final int parallelism;
  private int stageCount;
  private int exchangeCount;
  private int settingCount;

  Submission(int parallelism) {
    this.parallelism = parallelism;
  }

  Submission setting(String key, String value) throws IOException {
    settingCount++;
    string(settings, key);
    string(settings, value);
    return this;
  }

  Submission single(String name, int sideInputs) throws IOException {
    return stage(name, SINGLE, sideInputs);
  }

  Submission stage(String name, int sideInputs) throws IOException {
    return stage(name, 0, sideInputs);
  }

  private Submission stage(String name, int single, int sideInputs) throws IOException {
    string(stages, name);
    string(stages, "uid-" + stageCount++);
    stages.write(single);
    number(stages, sideInputs);
    return this;
  }

  /** Its id is ten times the count of exchanges before it. */
  Submission exchange(Graph.Kind kind, int from, int to, int input) throws IOException {
    number(exchanges, 10 * exchangeCount++);
    exchanges.write(kind.ordinal());
    number(exchanges, from);
    number(exchanges, to);
    number(exchanges, input);
    return this;
  }

  Graph graph(String... job) throws IOException {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    all.write("TRSG".getBytes(StandardCharsets.US_ASCII));
    all.write(0);
    all.write(1);
    string(all, "a job");
    number(all, parallelism);
    number(all, 128);
    number(all, settingCount);
    settings.writeTo(all);
    number(all, stageCount);
    stages.writeTo(all);
    number(all, exchangeCount);
    exchanges.writeTo(all);
    string(all, String.join("\n", job));
    return Graph.decode(all.toByteArray());
  }

  private static void number(ByteArrayOutputStream out, int n) throws IOException {
    new DataOutputStream(out).writeInt(n);
  }

  private static void string(ByteArrayOutputStream out, String text) throws IOException {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    number(out, bytes.length);
    out.write(bytes);
  }
}
