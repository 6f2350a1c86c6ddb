package trestle.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The binary here is a script of the test's resources. */
final class BinaryTest {
  @TempDir Path tmp;

  @Test
  void itIsPutWhereItCanRun() throws Exception {
    Path file = Binary.unpack(tmp, "Linux", "amd64");
    assertThat(file.getFileName()).hasToString("trestle");
    assertThat(file.getParent().getFileName().toString()).matches("trestle-[0-9a-f]{16}");
    assertThat(names(file.getParent())).containsExactly("trestle");
    Process process = new ProcessBuilder(file.toString(), "there").start();
    assertThat(new String(process.getInputStream().readAllBytes())).isEqualTo("hello there\n");
    assertThat(process.waitFor()).isZero();
  }

  @Test
  void theSameIsUsedAgain() throws Exception {
    Path file = Binary.unpack(tmp, "Linux", "amd64");
    FileTime old = FileTime.fromMillis(1_000_000_000_000L);
    Files.setLastModifiedTime(file, old);
    assertThat(Binary.unpack(tmp, "Linux", "x86_64")).isEqualTo(file);
    assertThat(Files.getLastModifiedTime(file)).isEqualTo(old);
  }

  @Test
  void aDamagedOneIsReplaced() throws Exception {
    Path file = Binary.unpack(tmp, "Linux", "amd64");
    String good = Files.readString(file);
    Files.writeString(file, "#!/bin/sh\necho broken\n");
    Binary.unpack(tmp, "Linux", "amd64");
    assertThat(file).hasContent(good);
  }

  @Test
  void manyMayPutItAtOnce() throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(8);
    try {
      Callable<Path> put = () -> Binary.unpack(tmp, "Linux", "amd64");
      for (Future<Path> file : threads.invokeAll(List.of(put, put, put, put, put, put, put, put))) {
        assertThat(file.get()).isExecutable();
      }
    } finally {
      threads.shutdown();
    }
    assertThat(names(Binary.unpack(tmp, "Linux", "amd64").getParent())).containsExactly("trestle");
  }

  @Test
  void aFolderThatOthersCanWriteToIsNotUsed() throws Exception {
    Path file = Binary.unpack(tmp, "Linux", "amd64");
    Files.setPosixFilePermissions(file.getParent(), PosixFilePermissions.fromString("rwxrwxrwx"));
    assertThat(Binary.unpack(tmp, "Linux", "amd64").getParent().getFileName())
        .hasToString(file.getParent().getFileName() + "-" + System.getProperty("user.name"));
  }

  @Test
  void anUnknownMachineIsNamed() {
    FailedException e =
        catchThrowableOfType(FailedException.class, () -> Binary.unpack(tmp, "Linux", "riscv64"));
    assertThat(e)
        .hasMessage(
            "there is no worker for linux-riscv64, which is what "
                + Host.name()
                + " is; there are: linux-amd64, linux-arm64");
    assertThat(e.hopeless()).isTrue();
  }

  @Test
  void aJarThatContradictsItselfIsRefusedAndNothingIsLeft() throws Exception {
    FailedException e =
        catchThrowableOfType(FailedException.class, () -> Binary.unpack(tmp, "Linux", "aarch64"));
    assertThat(e.getMessage())
        .contains(
            "cannot be put into " + tmp,
            "/trestle/linux-arm64 has the sha256 ",
            " MiB are free there");
    try (Stream<Path> all = Files.walk(tmp)) {
      assertThat(all.filter(Files::isRegularFile)).isEmpty();
    }
  }

  @Test
  void aFolderThatIsNotThereIsNamed() {
    Path nowhere = tmp.resolve("nowhere");
    FailedException e =
        catchThrowableOfType(FailedException.class, () -> Binary.unpack(nowhere, "Linux", "amd64"));
    assertThat(e.getMessage())
        .contains("cannot be put into " + nowhere + " on " + Host.name(), "NoSuchFileException");
    assertThat(e.hopeless()).isFalse();
  }

  private static List<String> names(Path dir) throws Exception {
    try (Stream<Path> all = Files.list(dir)) {
      return all.map(p -> p.getFileName().toString()).collect(Collectors.toList());
    }
  }
}
