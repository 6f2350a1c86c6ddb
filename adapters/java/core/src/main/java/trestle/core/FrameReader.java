package trestle.core;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;

/** Reads a worker's frames. For one thread. */
final class FrameReader {
  /** No frame is longer: a block of 64 MiB and what goes with it. */
  static final int LONGEST = (64 << 20) + 64;

  private final DataInputStream in;

  FrameReader(InputStream in) {
    this.in = new DataInputStream(new BufferedInputStream(in, 64 << 10));
  }

  /**
   * Waits for the next frame.
   *
   * @throws EOFException when the worker has closed the connection
   * @throws IOException also when what came is no frame of this version
   */
  Frame read() throws IOException {
    int length = in.readInt();
    if (length < 1 || length > LONGEST) {
      throw new IOException(
          "the worker sent a frame of " + Integer.toUnsignedString(length) + " bytes");
    }
    int type = in.readUnsignedByte();
    length--;
    switch (type) {
      case Frame.OPENED:
      case Frame.CREDIT:
      case Frame.PONG:
        exactly(type, length, 8);
        return new Frame(type, 0, 0, in.readLong(), Frame.NOTHING);
      case Frame.EMIT:
        atLeast(type, length, 8);
        return new Frame(type, in.readInt(), in.readInt(), 0, body(length - 8));
      case Frame.ENDED:
        exactly(type, length, 4);
        return new Frame(type, in.readInt(), 0, 0, Frame.NOTHING);
      case Frame.REPORT:
        return new Frame(type, 0, 0, 0, body(length));
      case Frame.FAILED:
        atLeast(type, length, 1);
        return new Frame(type, in.readUnsignedByte(), 0, 0, body(length - 1));
      case Frame.CLOSED:
        exactly(type, length, 0);
        return new Frame(type, 0, 0, 0, Frame.NOTHING);
      default:
        throw new IOException("the worker sent a frame of the unknown type " + type);
    }
  }

  private byte[] body(int length) throws IOException {
    byte[] body = new byte[length];
    in.readFully(body);
    return body;
  }

  private static void exactly(int type, int length, int want) throws IOException {
    if (length != want) {
      throw wrong(type, length);
    }
  }

  private static void atLeast(int type, int length, int want) throws IOException {
    if (length < want) {
      throw wrong(type, length);
    }
  }

  private static IOException wrong(int type, int length) {
    return new IOException(
        "the worker sent a frame of type " + type + " with " + length + " bytes");
  }
}
