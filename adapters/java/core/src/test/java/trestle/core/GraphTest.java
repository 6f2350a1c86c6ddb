package trestle.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class GraphTest {
  @Test
  void everyFieldIsRead() throws IOException {
    Graph graph = Graph.decode(sample());
    assertThat(graph.name).isEqualTo("wörd count");
    assertThat(graph.parallelism).isEqualTo(4);
    assertThat(graph.keyGroups).isEqualTo(128);
    assertThat(graph.settings).containsExactly(entry("b", "2"), entry("a", "1"));
    assertThat(graph.stages).extracting(s -> s.name).containsExactly("read", "count");
    assertThat(graph.stages).extracting(s -> s.uid).containsExactly("uid-read", "uid-count");
    assertThat(graph.stages).extracting(s -> s.single).containsExactly(true, false);
    assertThat(graph.stages).extracting(s -> s.sideInputs).containsExactly(0, 1);
    assertThat(graph.exchanges).extracting(e -> e.id).containsExactly(7, 9);
    assertThat(graph.exchanges)
        .extracting(e -> e.kind)
        .containsExactly(Graph.Kind.KEYED, Graph.Kind.BROADCAST);
    assertThat(graph.exchanges).extracting(e -> e.from).containsExactly(0, 0);
    assertThat(graph.exchanges).extracting(e -> e.to).containsExactly(1, 1);
    assertThat(graph.exchanges).extracting(e -> e.input).containsExactly(0, 1);
    assertThat(graph.job).asString(StandardCharsets.UTF_8).isEqualTo("the job");
  }

  @Test
  void aGraphThatEndsTooEarlyIsRefused() throws IOException {
    byte[] whole = sample();
    for (int n = 0; n < whole.length; n++) {
      byte[] part = Arrays.copyOf(whole, n);
      assertThatIllegalArgumentException().as("%d bytes", n).isThrownBy(() -> Graph.decode(part));
    }
  }

  @Test
  void bytesThatAreWrongAreRefusedOrRead() throws IOException {
    byte[] whole = sample();
    Random random = new Random(1);
    for (int n = 0; n < 20_000; n++) {
      byte[] wrong = whole.clone();
      for (int k = random.nextInt(4); k >= 0; k--) {
        wrong[6 + random.nextInt(wrong.length - 6)] = (byte) random.nextInt(256);
      }
      try {
        Graph.decode(wrong);
      } catch (IllegalArgumentException e) {
        assertThat(e).hasMessageStartingWith("the job's graph is malformed: ");
      }
    }
  }

  @Test
  void otherFormatsAndVersionsAreNamed() throws IOException {
    byte[] whole = sample();
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Graph.decode("hello, world".getBytes(StandardCharsets.UTF_8)))
        .withMessage("the program's argument is not a job of Trestle's");
    byte[] newer = ByteBuffer.wrap(whole.clone()).putShort(4, (short) 2).array();
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Graph.decode(newer))
        .withMessage(
            "the job's graph is of version 2, and this adapter reads version 1: job server and adapter are of"
                + " different versions");
    byte[] longer = Arrays.copyOf(whole, whole.length + 1);
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Graph.decode(longer))
        .withMessageContaining("1 bytes follow its end");
  }

  @Test
  void exchangesThatLeadNowhereAreRefused() throws IOException {
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Graph.decode(graph(new int[][] {{7, 2, 1, 1, 0}})))
        .withMessageContaining("exchange 7 leads from stage 1 to 1 of 2");
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Graph.decode(graph(new int[][] {{7, 2, 0, 2, 0}})))
        .withMessageContaining("exchange 7 leads from stage 0 to 2 of 2");
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Graph.decode(graph(new int[][] {{7, 3, 0, 1, 2}})))
        .withMessageContaining("exchange 7 feeds input 2 of stage 1, which has 1 side inputs");
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Graph.decode(graph(new int[][] {{7, 4, 0, 1, 0}})))
        .withMessageContaining("exchange 7 is of the unknown kind 4");
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Graph.decode(graph(new int[][] {{7, 2, 0, 1, 0}, {7, 2, 0, 1, 0}})))
        .withMessageContaining("two exchanges have the id 7");
  }

  private static byte[] sample() throws IOException {
    return graph(new int[][] {{7, 2, 0, 1, 0}, {9, 3, 0, 1, 1}});
  }

  /** Exchanges are id, kind, from, to, side. */
  private static byte[] graph(int[][] exchanges) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    DataOutputStream out = new DataOutputStream(bytes);
    out.writeBytes("TRSG");
    out.writeShort(1);
    string(out, "wörd count");
    out.writeInt(4);
    out.writeInt(128);
    out.writeInt(2);
    string(out, "b");
    string(out, "2");
    string(out, "a");
    string(out, "1");
    out.writeInt(2);
    string(out, "read");
    string(out, "uid-read");
    out.writeByte(1);
    out.writeInt(0);
    string(out, "count");
    string(out, "uid-count");
    out.writeByte(0);
    out.writeInt(1);
    out.writeInt(exchanges.length);
    for (int[] e : exchanges) {
      out.writeInt(e[0]);
      out.writeByte(e[1]);
      out.writeInt(e[2]);
      out.writeInt(e[3]);
      out.writeInt(e[4]);
    }
    string(out, "the job");
    return bytes.toByteArray();
  }

  private static void string(DataOutputStream out, String text) throws IOException {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    out.writeInt(bytes.length);
    out.write(bytes);
  }

  private static Map.Entry<String, String> entry(String key, String value) {
    return Map.entry(key, value);
  }
}
