package trestle.flink;

import java.util.Base64;
import org.apache.flink.api.common.accumulators.Accumulator;

/**
 * A task's latest report, as an accumulator that is the task's alone: so Flink never merges two, and the report of an attempt
 * that failed goes with the attempt. Its string form, in which Flink's REST API shows it, is base64.
 */
final class Report implements Accumulator<byte[], String> {
  private volatile String value = ""; // Flink reads it from a thread of its own

  @Override
  public void add(byte[] report) {
    value = Base64.getEncoder().encodeToString(report);
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
