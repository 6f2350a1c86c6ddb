package trestle.flink;

import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;

/**
 * A worker's process without Beam, so that Flink's side can be tested without ours: it speaks the contract of
 * docs/protocols/socket.md, written down here once more. Its job is a text of properties: {@code stage.N} says what stage N
 * does, see {@link FakeTask}.
 */
final class FakeWorker {
  static final String TOKEN = "0123456789abcdef".repeat(4);

  public static void main(String[] args) throws Exception {
    if (args[0].equals("probe")) {
      String pack = new String(System.in.readAllBytes());
      System.out.print(
          "{\"pack\":\"" + pack + "\",\"pid\":" + ProcessHandle.current().pid()
              + ",\"folder\":" + Files.isDirectory(Path.of(args[2])) + "}");
      return;
    }
    if (args.length != 5 || !args[0].equals("worker") || !args[1].equals("--scratch")
        || !args[3].equals("--tasks")) {
      System.err.println("cannot be started with " + String.join(" ", args));
      System.exit(2);
    }
    DataInputStream in = new DataInputStream(System.in);
    byte[] text = new byte[in.readInt()];
    in.readFully(text);
    Properties job = new Properties();
    job.load(new ByteArrayInputStream(text));
    String tasks = job.getProperty("tasks", args[4]);
    if (!tasks.equals(args[4])) {
      System.err.println("was told of " + args[4] + " tasks, not of " + tasks);
      System.exit(4);
    }
    if (job.containsKey("refuse")) {
      System.err.println(job.getProperty("refuse"));
      System.exit(3);
    }
    ServerSocket server = new ServerSocket(0, 50, InetAddress.getByAddress(new byte[] {127, 0, 0, 1}));
    new Thread(() -> listen(server, job)).start();
    System.out.println("trestle-worker 1 " + server.getLocalPort() + " " + TOKEN);
    System.err.println("the fake worker listens");
    while (in.read() >= 0) {
      // nothing more is said
    }
    System.exit(0);
  }

  private static void listen(ServerSocket server, Properties job) {
    while (true) {
      try {
        Socket socket = server.accept();
        new Thread(() -> serve(socket, job)).start();
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
    }
  }

  private static void serve(Socket socket, Properties job) {
    try (socket) {
      DataInputStream in = new DataInputStream(socket.getInputStream());
      DataOutputStream out = new DataOutputStream(socket.getOutputStream());
      int length = in.readInt();
      int type = in.readUnsignedByte();
      int version = in.readUnsignedByte();
      StringBuilder token = new StringBuilder();
      for (byte b : in.readNBytes(32)) {
        token.append(String.format("%02x", b));
      }
      if (length != 34 || type != 1 || version != 1 || !token.toString().equals(TOKEN)) {
        throw new IOException("no hello");
      }
      in.readInt();
      switch (in.readUnsignedByte()) {
        case 2:
          new FakeTask(in, out, job).run();
          break;
        case 7:
          pong(in, out);
          break;
        default:
          throw new IOException("neither a task nor a heartbeat");
      }
    } catch (Exception e) {
      System.err.println("a connection ends: " + e);
    }
  }

  private static void pong(DataInputStream in, DataOutputStream out) throws IOException {
    while (true) {
      long number = in.readLong();
      out.writeInt(9);
      out.writeByte(72);
      out.writeLong(number);
      in.readInt();
      in.readUnsignedByte();
    }
  }
}
