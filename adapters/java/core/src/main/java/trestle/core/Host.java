package trestle.core;

import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.file.Files;
import java.nio.file.Path;

/** This machine, for texts that people read. */
public final class Host {
  private Host() {}

  /**
   * The name that the machine gives itself, without asking any name server; {@code unknown} when it
   * has none.
   */
  public static String name() {
    try {
      return Files.readString(Path.of("/proc/sys/kernel/hostname")).trim();
    } catch (IOException noLinux) {
      try {
        return InetAddress.getLocalHost().getHostName();
      } catch (UnknownHostException nameless) {
        return "unknown";
      }
    }
  }
}
