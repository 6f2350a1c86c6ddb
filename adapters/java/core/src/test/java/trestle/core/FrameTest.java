package trestle.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Frames byte by byte, as docs/protocols/socket.md has them. */
final class FrameTest {
  private final ByteArrayOutputStream sent = new ByteArrayOutputStream();
  private final FrameWriter out = new FrameWriter(sent);

  @Test
  void hello() throws IOException {
    byte[] token = new byte[32];
    Arrays.fill(token, (byte) 0xab);
    out.hello(token);
    assertThat(hex()).isEqualTo("00000022" + "01" + "01" + "ab".repeat(32));
  }

  @Test
  void open() throws IOException {
    out.open(1, 2, 3, 4, 0x500000000L);
    assertThat(hex())
        .isEqualTo("00000019" + "02" + "00000001000000020000000300000004" + "0000000500000000");
  }

  @Test
  void process() throws IOException {
    out.process(1, 127, new byte[] {9, 8});
    assertThat(hex()).isEqualTo("0000000b" + "03" + "00000001" + "0000007f" + "0908");
  }

  @Test
  void aBlockThatDoesNotFitIntoTheBufferFollowsItsHeader() throws IOException {
    byte[] block = new byte[100_000];
    new Random(1).nextBytes(block);
    out.process(0, 0, block);
    byte[] all = sent.toByteArray();
    assertThat(all).hasSize(13 + block.length).endsWith(block).startsWith(0, 1, 0x86, 0xa9, 3);
    out.end(0); // and the buffer is clean again
    assertThat(hex()).endsWith("00000005" + "04" + "00000000");
  }

  @Test
  void theRest() throws IOException {
    out.end(2);
    out.close();
    out.credit(0x100000001L);
    out.ping(3);
    assertThat(hex())
        .isEqualTo(
            "00000005"
                + "04"
                + "00000002"
                + "00000001"
                + "05"
                + "00000009"
                + "06"
                + "0000000100000001"
                + "00000009"
                + "07"
                + "0000000000000003");
  }

  @Test
  void everyTypeIsRead() throws IOException {
    assertThat(read("0000000941" + "0000000100000000"))
        .satisfies(f -> is(f, Frame.OPENED, 0, 0, 1L << 32, ""));
    assertThat(read("0000000b42" + "00000007" + "0000007f" + "0908"))
        .satisfies(f -> is(f, Frame.EMIT, 7, 127, 0, "0908"));
    assertThat(read("0000000942" + "00000007" + "0000007f"))
        .satisfies(f -> is(f, Frame.EMIT, 7, 127, 0, ""));
    assertThat(read("0000000543" + "00000001")).satisfies(f -> is(f, Frame.ENDED, 1, 0, 0, ""));
    assertThat(read("0000000344" + "7b7d")).satisfies(f -> is(f, Frame.REPORT, 0, 0, 0, "7b7d"));
    assertThat(read("0000000945" + "0000000000000400"))
        .satisfies(f -> is(f, Frame.CREDIT, 0, 0, 1024, ""));
    assertThat(read("0000000446" + "01" + "6f68"))
        .satisfies(f -> is(f, Frame.FAILED, 1, 0, 0, "6f68"));
    assertThat(read("0000000147")).satisfies(f -> is(f, Frame.CLOSED, 0, 0, 0, ""));
    assertThat(read("0000000948" + "0000000000000005"))
        .satisfies(f -> is(f, Frame.PONG, 0, 0, 5, ""));
  }

  @Test
  void whatIsNoFrameIsRefused() {
    for (String wrong :
        new String[] {
          "0000000048", // shorter than a type
          "0400004141", // longer than the longest
          "ffffffff41",
          "0000000163", // an unknown type
          "0000000103", // one of the adapter's own
          "0000000841" + "00000001000000", // too short for its type
          "0000000a41" + "000000010000000000", // and too long
          "0000000842" + "00000007000000",
          "0000000146",
          "0000000247" + "00",
        }) {
      Throwable thrown = catchThrowable(() -> read(wrong));
      assertThat(thrown)
          .as(wrong)
          .isInstanceOf(IOException.class)
          .isNotInstanceOf(EOFException.class)
          .hasMessageStartingWith("the worker sent a frame of ");
    }
    assertThatThrownBy(() -> read("0000000b42000000")).isInstanceOf(EOFException.class);
    assertThatThrownBy(() -> read("")).isInstanceOf(EOFException.class);
  }

  @Test
  void anyBytesEndInAFrameOrAnError() {
    Random random = new Random(1);
    for (int n = 0; n < 20_000; n++) {
      byte[] bytes = new byte[random.nextInt(40)];
      random.nextBytes(bytes);
      for (int i = 0; i < Math.min(3, bytes.length); i++) {
        bytes[i] = 0; // so that lengths are short
      }
      if (bytes.length > 4) {
        bytes[4] = (byte) (64 + random.nextInt(12));
      }
      FrameReader in = new FrameReader(new ByteArrayInputStream(bytes));
      Throwable end =
          catchThrowable(
              () -> {
                while (true) {
                  in.read();
                }
              });
      assertThat(end).isInstanceOf(IOException.class);
    }
  }

  private static void is(Frame frame, int type, int index, int keyGroup, long number, String body) {
    assertThat(frame.type).isEqualTo(type);
    assertThat(frame.index).isEqualTo(index);
    assertThat(frame.keyGroup).isEqualTo(keyGroup);
    assertThat(frame.number).isEqualTo(number);
    assertThat(frame.body).isEqualTo(bytes(body));
  }

  private static Frame read(String hex) throws IOException {
    return new FrameReader(new ByteArrayInputStream(bytes(hex))).read();
  }

  private static byte[] bytes(String hex) {
    byte[] bytes = new byte[hex.length() / 2];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = (byte) Integer.parseInt(hex.substring(2 * i, 2 * i + 2), 16);
    }
    return bytes;
  }

  private String hex() {
    StringBuilder hex = new StringBuilder();
    for (byte b : sent.toByteArray()) {
      hex.append(String.format("%02x", b));
    }
    return hex.toString();
  }
}
