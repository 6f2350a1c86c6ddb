package trestle.core;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;

/**
 * Writes an adapter's frames, each with one write where it fits into 64 KiB. For one thread. A
 * write waits only while the worker does not read, which it does at all times.
 */
final class FrameWriter {
  static final int VERSION = 1;

  private static final int HELLO = 1;
  private static final int OPEN = 2;
  private static final int PROCESS = 3;
  private static final int END = 4;
  private static final int CLOSE = 5;
  private static final int CREDIT = 6;
  private static final int PING = 7;

  private final OutputStream out;
  private final ByteBuffer buffer = ByteBuffer.allocate(64 << 10);

  FrameWriter(OutputStream out) {
    this.out = out;
  }

  void hello(byte[] token) throws IOException {
    start(HELLO, 1 + token.length).put((byte) VERSION);
    finish(token);
  }

  void open(int stage, int task, int parallelism, int attempt, long credit) throws IOException {
    start(OPEN, 24).putInt(stage).putInt(task).putInt(parallelism).putInt(attempt).putLong(credit);
    finish(Frame.NOTHING);
  }

  void process(int input, int keyGroup, byte[] block) throws IOException {
    start(PROCESS, 8 + block.length).putInt(input).putInt(keyGroup);
    finish(block);
  }

  void end(int input) throws IOException {
    start(END, 4).putInt(input);
    finish(Frame.NOTHING);
  }

  void close() throws IOException {
    start(CLOSE, 0);
    finish(Frame.NOTHING);
  }

  void credit(long bytes) throws IOException {
    start(CREDIT, 8).putLong(bytes);
    finish(Frame.NOTHING);
  }

  void ping(long number) throws IOException {
    start(PING, 8).putLong(number);
    finish(Frame.NOTHING);
  }

  private ByteBuffer start(int type, int length) {
    return buffer.clear().putInt(1 + length).put((byte) type);
  }

  private void finish(byte[] rest) throws IOException {
    if (rest.length <= buffer.remaining()) {
      buffer.put(rest);
      out.write(buffer.array(), 0, buffer.position());
      return;
    }
    out.write(buffer.array(), 0, buffer.position());
    out.write(rest);
  }
}
