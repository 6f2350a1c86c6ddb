package trestle.core;

import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.DigestInputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Locale;
import java.util.Properties;
import java.util.TreeSet;

/**
 * The worker's program, which travels in the adapter's jar, as a file of this host. All processes
 * of a user share one; it is there whole or not at all.
 */
public final class Binary {
  private final String resource;
  private final String sha256;

  private Binary(String resource, String sha256) {
    this.resource = resource;
    this.sha256 = sha256;
  }

  /**
   * Puts the program for this machine into a folder below {@code tmp}, if it is not there yet.
   *
   * @throws FailedException when the jar has none for this machine, or the folder does not take it
   */
  public static Path unpack(Path tmp) throws FailedException {
    return unpack(tmp, System.getProperty("os.name"), System.getProperty("os.arch"));
  }

  static Path unpack(Path tmp, String os, String arch) throws FailedException {
    Binary binary = find(platform(os, arch));
    Path dir = null;
    try {
      dir = binary.folder(tmp);
      Path file = dir.resolve("trestle");
      binary.place(file);
      if (!Files.isExecutable(file)) {
        throw new IOException("it is not executable there, as in a folder that is mounted noexec");
      }
      return file;
    } catch (IOException e) {
      Path where = dir == null ? tmp : dir;
      throw new FailedException(
          "Trestle's worker cannot be put into "
              + where
              + " on "
              + Host.name()
              + ": "
              + reason(e)
              + ". "
              + free(tmp)
              + " Give the JVM of the TaskManager another folder by"
              + " -Djava.io.tmpdir (env.java.opts.taskmanager).",
          e);
    }
  }

  private static String platform(String os, String arch) {
    switch (arch) {
      case "x86_64":
        arch = "amd64";
        break;
      case "aarch64":
        arch = "arm64";
        break;
      default:
        break;
    }
    return os.toLowerCase(Locale.ROOT).replace(' ', '-') + "-" + arch;
  }

  private static Binary find(String platform) throws FailedException {
    Properties digests = new Properties();
    try (InputStream in = Binary.class.getResourceAsStream("/trestle/digests.properties")) {
      if (in == null) {
        throw new FailedException(
            true, "the adapter's jar holds no worker: it was not submitted by Trestle");
      }
      digests.load(in);
    } catch (IOException e) {
      throw new FailedException(
          "the adapter's jar cannot be read on " + Host.name() + ": " + e.getMessage(), e);
    }
    String digest = digests.getProperty(platform);
    if (digest == null) {
      throw new FailedException(
          true,
          "there is no worker for "
              + platform
              + ", which is what "
              + Host.name()
              + " is; there are: "
              + String.join(", ", new TreeSet<>(digests.stringPropertyNames())));
    }
    return new Binary("/trestle/" + platform, digest);
  }

  /** A folder that nobody else can write to: what is run is what was verified. */
  private Path folder(Path tmp) throws IOException {
    String name = "trestle-" + sha256.substring(0, 16);
    Path shared = own(tmp.resolve(name));
    if (shared != null) {
      return shared;
    }
    Path dir = own(tmp.resolve(name + "-" + System.getProperty("user.name")));
    if (dir == null) {
      throw new IOException("folders of these names belong to somebody else");
    }
    return dir;
  }

  private static Path own(Path dir) throws IOException {
    try {
      Files.createDirectory(
          dir, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
      return dir;
    } catch (FileAlreadyExistsException e) {
      Path probe;
      try {
        probe = Files.createTempFile(dir, "own", null);
      } catch (IOException foreign) {
        if (Files.isWritable(dir)) {
          throw foreign; // ours, and full
        }
        return null;
      }
      try {
        boolean ours =
            Files.getOwner(dir, LinkOption.NOFOLLOW_LINKS).equals(Files.getOwner(probe))
                && PosixFilePermissions.toString(Files.getPosixFilePermissions(dir))
                    .endsWith("------");
        return ours ? dir : null;
      } finally {
        Files.delete(probe);
      }
    }
  }

  private void place(Path file) throws IOException {
    if (verified(file)) {
      return;
    }
    Path part = Files.createTempFile(file.getParent(), "part", null);
    try {
      MessageDigest digest = sha256();
      try (InputStream in = Binary.class.getResourceAsStream(resource);
          FileOutputStream out = new FileOutputStream(part.toFile())) {
        if (in == null) {
          throw new IOException("the jar lacks " + resource);
        }
        new DigestInputStream(in, digest).transferTo(out);
        out.getFD().sync(); // its name is not to be on the disk before it
      }
      String got = hex(digest);
      if (!got.equals(sha256)) {
        throw new IOException(
            "the jar's " + resource + " has the sha256 " + got + ", not " + sha256);
      }
      Files.setPosixFilePermissions(part, PosixFilePermissions.fromString("rwx------"));
      Files.move(part, file, StandardCopyOption.ATOMIC_MOVE);
    } finally {
      Files.deleteIfExists(part);
    }
  }

  /**
   * Reads a file once per JVM, whatever the class loader; after that its size and age must stay.
   */
  private boolean verified(Path file) throws IOException {
    if (!Files.isRegularFile(file, LinkOption.NOFOLLOW_LINKS)) {
      return false;
    }
    String key = "trestle.verified." + file;
    String state = Files.size(file) + " " + Files.getLastModifiedTime(file).toMillis();
    if (state.equals(System.getProperty(key))) {
      return true;
    }
    MessageDigest digest = sha256();
    try (InputStream in = new DigestInputStream(Files.newInputStream(file), digest)) {
      in.transferTo(OutputStream.nullOutputStream());
    }
    if (!hex(digest).equals(sha256)) {
      return false;
    }
    System.setProperty(key, state);
    return true;
  }

  private static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e); // every JVM has it
    }
  }

  /** The digest of what was read; a second call would be of nothing. */
  private static String hex(MessageDigest digest) {
    StringBuilder hex = new StringBuilder();
    for (byte b : digest.digest()) {
      hex.append(String.format("%02x", b));
    }
    return hex.toString();
  }

  private static String reason(IOException e) {
    return e.getMessage() == null || e.getClass() == IOException.class
        ? String.valueOf(e.getMessage())
        : e.getClass().getSimpleName() + ": " + e.getMessage();
  }

  private static String free(Path dir) {
    try {
      return (Files.getFileStore(dir).getUsableSpace() >> 20) + " MiB are free there.";
    } catch (IOException e) {
      return "How much is free there cannot be said: " + e.getMessage() + ".";
    }
  }
}
