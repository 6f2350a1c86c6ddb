package trestle.flink;

import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.api.common.accumulators.Accumulator;

/**
 * A task's latest report, as an accumulator that is the task's alone: so Flink never merges two, and the report of an attempt
 * that failed goes with the attempt. Its string form, in which Flink's REST API shows it, is base64.
 */
final class Report implements Accumulator<byte[], String> {
  private static final Pattern MEMORY = Pattern.compile("\"memory\":\\{([a-zA-Z0-9\":,]*)\\}");

  private volatile String value = ""; // Flink reads it from a thread of its own
  private volatile String memory = "";

  @Override
  public void add(byte[] report) {
    value = Base64.getEncoder().encodeToString(report);
    // In a message of user code the quotes are escaped.
    String text = new String(report, StandardCharsets.UTF_8);
    Matcher found = MEMORY.matcher(text);
    int from = text.lastIndexOf("\"memory\":{");
    if (from >= 0 && found.find(from)) {
      memory = found.group(1);
    }
  }

  /** A number of bytes that the worker told of its memory; 0 when it has not yet. */
  long memory(String name) {
    for (String field : memory.split(",")) {
      String[] parts = field.split(":");
      if (parts.length == 2 && parts[0].equals("\"" + name + "\"")) {
        return Long.parseLong(parts[1]);
      }
    }
    return 0;
  }

  @Override
  public String getLocalValue() {
    return value;
  }

  @Override
  public void resetLocal() {
    value = "";
  }

  @Override
  public void merge(Accumulator<byte[], String> other) {
    value = other.getLocalValue();
  }

  @Override
  public Report clone() {
    Report copy = new Report();
    copy.value = value;
    return copy;
  }
}
