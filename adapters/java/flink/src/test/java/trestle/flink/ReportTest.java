package trestle.flink;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

class ReportTest {
  /** A task's metrics of its worker's memory are what the last report said, whatever its messages say. */
  @Test
  void tellsMemory() {
    Report report = new Report();
    assertThat(report.memory("resident")).isZero();
    add(report, "{\"host\":\"a\",\"memory\":{\"resident\":12,\"residentPeak\":34,\"held\":0}}");
    assertThat(report.memory("resident")).isEqualTo(12);
    assertThat(report.memory("residentPeak")).isEqualTo(34);
    assertThat(report.memory("held")).isZero();
    assertThat(report.memory("budget")).isZero();
    add(
        report,
        "{\"messages\":[{\"text\":\"\\\"memory\\\":{\\\"resident\\\":5}\"}],"
            + "\"memory\":{\"resident\":13,\"residentPeak\":34}}");
    assertThat(report.memory("resident")).isEqualTo(13);
    add(report, "{\"host\":\"a\"}");
    assertThat(report.memory("resident")).isEqualTo(13);
  }

  private static void add(Report report, String json) {
    report.add(json.getBytes(StandardCharsets.UTF_8));
  }
}
