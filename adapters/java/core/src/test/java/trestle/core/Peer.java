package trestle.core;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.concurrent.CopyOnWriteArrayList;

/**
 * What a worker listens on, in the test's own process. It takes hellos, answers heartbeats, and
 * leaves tasks to the test.
 */
final class Peer implements AutoCloseable {
  /** A task's connection, after its open. */
  interface Serve {
    void run(DataInputStream in, DataOutputStream out, long credit) throws IOException;
  }

  private final ServerSocket server;
  private final Serve serve;
  private final CopyOnWriteArrayList<Socket> sockets = new CopyOnWriteArrayList<>();
  final CopyOnWriteArrayList<String> wrong = new CopyOnWriteArrayList<>();
  volatile boolean deaf; // to heartbeats
  volatile int pings;

  Peer(Serve serve) throws IOException {
    this.serve = serve;
    server = new ServerSocket(0, 50, InetAddress.getByAddress(new byte[] {127, 0, 0, 1}));
    start(this::listen);
  }

  int port() {
    return server.getLocalPort();
  }

  private static void start(Runnable run) {
    Thread thread = new Thread(run, "peer");
    thread.setDaemon(true);
    thread.start();
  }

  private void listen() {
    try {
      while (true) {
        Socket socket = server.accept();
        sockets.add(socket);
        start(() -> talk(socket));
      }
    } catch (IOException e) {
      // closed
    }
  }

  private void talk(Socket socket) {
    try (socket) {
      DataInputStream in = new DataInputStream(socket.getInputStream());
      DataOutputStream out = new DataOutputStream(socket.getOutputStream());
      if (in.readInt() != 34 || in.readUnsignedByte() != 1 || in.readUnsignedByte() != 1) {
        wrong.add("a connection does not begin with hello");
        return;
      }
      StringBuilder token = new StringBuilder();
      for (byte b : in.readNBytes(32)) {
        token.append(String.format("%02x", b));
      }
      if (!token.toString().equals(Script.TOKEN)) {
        wrong.add("the token is " + token);
        return;
      }
      in.readInt();
      if (in.readUnsignedByte() == 7) {
        pong(in, out);
        return;
      }
      in.readNBytes(16);
      serve.run(in, out, in.readLong());
    } catch (IOException e) {
      // the adapter closed it
    } catch (RuntimeException | AssertionError e) {
      wrong.add(e.toString());
    }
  }

  private void pong(DataInputStream in, DataOutputStream out) throws IOException {
    while (true) {
      long number = in.readLong();
      pings++;
      if (!deaf) {
        out.writeInt(9);
        out.writeByte(72);
        out.writeLong(number);
      }
      in.readInt();
      in.readUnsignedByte();
    }
  }

  @Override
  public void close() throws IOException {
    server.close();
    for (Socket socket : sockets) {
      socket.close();
    }
  }
}
