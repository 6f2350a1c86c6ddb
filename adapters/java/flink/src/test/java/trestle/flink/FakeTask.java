package trestle.flink;

import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * A task of {@link FakeWorker}. What {@code stage.N} may say:
 *
 * <ul>
 *   <li>{@code make COUNT SIZE EXCHANGE…}: when its main input ends, the first task emits so many blocks of so many bytes into
 *       each exchange, block i of the key group i % 128
 *   <li>{@code pass EXCHANGE…}: emits each block of its main input into each exchange
 *   <li>{@code fail KIND TEXT}: fails when its main input ends
 *   <li>{@code fail-once KIND TEXT}: the same, and as pass without exchanges from the second attempt on
 *   <li>{@code hang}: says so in a report when its main input ends, and nothing more
 *   <li>{@code die STATUS}: ends the process when its main input ends
 * </ul>
 *
 * Its report is what came on each input, in the order in which inputs began: {@code INPUT=BLOCKS/BYTES/KEYGROUPS …}.
 */
final class FakeTask {
  private static final long WINDOW = 300_000;

  private final DataInputStream in;
  private final DataOutputStream out;
  private final String[] what;
  private final LinkedBlockingQueue<Event> events = new LinkedBlockingQueue<>();
  private final int stage;
  private final int task;
  private final int attempt;
  private final Map<Integer, long[]> seen = new TreeMap<>();
  private final StringBuilder order = new StringBuilder();
  private long credit;
  private volatile boolean closed;

  /** What is handled in order. */
  private static final class Event {
    final int type;
    final int input;
    final int keyGroup;
    final byte[] block;

    Event(int type, int input, int keyGroup, byte[] block) {
      this.type = type;
      this.input = input;
      this.keyGroup = keyGroup;
      this.block = block;
    }
  }

  FakeTask(DataInputStream in, DataOutputStream out, Properties job) throws IOException {
    this.in = in;
    this.out = out;
    stage = in.readInt();
    task = in.readInt();
    in.readInt(); // parallelism
    attempt = in.readInt();
    credit = in.readLong();
    what = job.getProperty("stage." + stage, "pass").split(" ");
    System.err.println("task " + stage + "/" + task + " opens, attempt " + attempt);
  }

  void run() throws Exception {
    frame(65, b -> b.writeLong(WINDOW));
    Thread reader = new Thread(this::read);
    reader.start();
    while (true) {
      Event event = events.take();
      switch (event.type) {
        case 3:
          process(event);
          break;
        case 4:
          if (!end(event.input)) {
            return;
          }
          break;
        default:
          frame(71, b -> {});
          return;
      }
    }
  }

  private void read() {
    try {
      while (true) {
        int length = in.readInt();
        int type = in.readUnsignedByte();
        switch (type) {
          case 3:
            events.add(new Event(3, in.readInt(), in.readInt(), in.readNBytes(length - 9)));
            break;
          case 4:
            events.add(new Event(4, in.readInt(), 0, null));
            break;
          case 6:
            give(in.readLong());
            break;
          default:
            close();
            return;
        }
      }
    } catch (IOException e) {
      close();
    }
  }

  private void close() {
    synchronized (this) {
      closed = true;
      notifyAll();
    }
    events.clear();
    events.add(new Event(5, 0, 0, null));
  }

  private synchronized void give(long bytes) {
    credit += bytes;
    notifyAll();
  }

  private void process(Event event) throws Exception {
    long[] sums = seen.get(event.input);
    if (sums == null) {
      sums = new long[3];
      seen.put(event.input, sums);
      order.append(event.input).append(' ');
    }
    sums[0]++;
    sums[1] += event.block.length;
    sums[2] += event.keyGroup;
    if (what[0].equals("pass") && event.input == 0) {
      for (int i = 1; i < what.length; i++) {
        emit(Integer.parseInt(what[i]), event.keyGroup, event.block);
      }
    }
    frame(69, b -> b.writeLong(event.block.length + 64));
  }

  /** False when the task has failed. */
  private boolean end(int input) throws Exception {
    if (input == 0) {
      String text = String.join(" ", Arrays.asList(what).subList(Math.min(2, what.length), what.length));
      switch (what[0]) {
        case "make":
          make();
          break;
        case "fail-once":
          if (attempt > 0) {
            break;
          }
          report();
          return fail(text);
        case "fail":
          return fail(text);
        case "hang":
          report();
          return true;
        case "die":
          System.err.println("dying as told");
          System.exit(Integer.parseInt(what[1]));
          break;
        default:
          break;
      }
      report();
    }
    frame(67, b -> b.writeInt(input));
    return true;
  }

  private boolean fail(String text) throws IOException {
    frame(
        70,
        b -> {
          b.writeByte(Integer.parseInt(what[1]));
          b.write(text.replace("\\n", "\n").getBytes(StandardCharsets.UTF_8));
        });
    frame(71, b -> {});
    return false;
  }

  private void make() throws Exception {
    if (task != 0) {
      return;
    }
    int count = Integer.parseInt(what[1]);
    int size = Integer.parseInt(what[2]);
    for (int i = 0; i < count; i++) {
      for (int e = 3; e < what.length; e++) {
        emit(Integer.parseInt(what[e]), i % 128, new byte[size]);
      }
    }
  }

  private void emit(int exchange, int keyGroup, byte[] block) throws Exception {
    synchronized (this) {
      while (credit < block.length + 64 && !closed) {
        wait();
      }
      credit -= block.length + 64;
    }
    frame(
        66,
        b -> {
          b.writeInt(exchange);
          b.writeInt(keyGroup);
          b.write(block);
        });
  }

  private void report() throws IOException {
    StringBuilder text = new StringBuilder("attempt=" + attempt);
    for (String input : order.toString().split(" ")) {
      if (!input.isEmpty()) {
        long[] sums = seen.get(Integer.parseInt(input));
        text.append(String.format(" %s=%d/%d/%d", input, sums[0], sums[1], sums[2]));
      }
    }
    frame(68, b -> b.write(text.toString().getBytes(StandardCharsets.UTF_8)));
  }

  private interface Body {
    void write(DataOutputStream out) throws IOException;
  }

  private void frame(int type, Body body) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    body.write(new DataOutputStream(bytes));
    synchronized (out) {
      out.writeInt(1 + bytes.size());
      out.writeByte(type);
      bytes.writeTo(out);
      out.flush();
    }
  }
}
