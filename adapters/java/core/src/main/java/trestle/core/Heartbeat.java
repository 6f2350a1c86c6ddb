package trestle.core;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Notices a worker that hangs, by asking it for an answer on a connection of its own. */
final class Heartbeat {
  private static final int PONG_BYTES = 13;

  private final Limits limits;
  private final CountDownLatch stop;
  private final Runnable each;

  /**
   * @param stop ends it when it is counted down
   * @param each called after each answer; must not wait
   */
  Heartbeat(Limits limits, CountDownLatch stop, Runnable each) {
    this.limits = limits;
    this.stop = stop;
    this.each = each;
  }

  /**
   * Asks until it is stopped or the worker hangs.
   *
   * @param socket a connection after its hello
   * @return what is wrong with a worker that hangs; null when it was stopped
   * @throws IOException when the worker closes the connection
   */
  String beat(Socket socket) throws IOException, InterruptedException {
    // The wait for an answer is cut into pieces, so that one long pause of this JVM does not count
    // as the worker's.
    socket.setSoTimeout((int) limits.beat.toMillis());
    FrameWriter out = new FrameWriter(socket.getOutputStream());
    InputStream in = socket.getInputStream();
    long number = 0;
    do {
      out.ping(++number);
      if (!answered(in, number)) {
        return "it did not answer for " + limits.hang.toSeconds() + " s";
      }
      each.run();
    } while (!stop.await(limits.beat.toMillis(), TimeUnit.MILLISECONDS));
    return null;
  }

  /** Reads one pong; a partial one survives a time-out. */
  private boolean answered(InputStream in, long number) throws IOException {
    byte[] pong = new byte[PONG_BYTES];
    long pieces = limits.hang.toMillis() / limits.beat.toMillis();
    for (int have = 0; have < PONG_BYTES; ) {
      try {
        int n = in.read(pong, have, PONG_BYTES - have);
        if (n < 0) {
          throw new EOFException("it closed the connection");
        }
        have += n;
      } catch (SocketTimeoutException silence) {
        if (stop.getCount() == 0) {
          return true;
        }
        if (--pieces <= 0) {
          return false;
        }
      }
    }
    ByteBuffer got = ByteBuffer.wrap(pong);
    if (got.getInt() != PONG_BYTES - 4 || got.get() != Frame.PONG || got.getLong() != number) {
      throw new IOException("its answer to ping " + number + " is none");
    }
    return true;
  }
}
