package trestle.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@Timeout(180)
final class SpawnTest {
  @TempDir Path dir;
  private Path file;

  @BeforeEach
  void write() throws Exception {
    file = dir.resolve("program");
    Files.writeString(file, "#!/bin/sh\necho it runs\n");
    Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rwx------"));
  }

  @Test
  void whatIsOpenForWritingIsStartedOnceItIsNot() throws Exception {
    OutputStream held = Files.newOutputStream(file, StandardOpenOption.APPEND);
    AtomicInteger busy = new AtomicInteger();
    Process process =
        Spawn.start(
            List.of(file.toString()),
            Duration.ofDays(1),
            () -> {
              if (busy.incrementAndGet() == 3) {
                close(held);
              }
            });
    assertThat(busy).hasValueGreaterThanOrEqualTo(3);
    assertThat(new String(process.getInputStream().readAllBytes())).isEqualTo("it runs\n");
    assertThat(process.waitFor()).isZero();
  }

  @Test
  void whatStaysOpenForWritingIsGivenUp() throws Exception {
    try (OutputStream held = Files.newOutputStream(file, StandardOpenOption.APPEND)) {
      assertThatThrownBy(
              () -> Spawn.start(List.of(file.toString()), Duration.ofMillis(1), () -> {}))
          .isInstanceOf(IOException.class)
          .hasMessageStartingWith("a process has had it open for writing for 0 s: ")
          .hasMessageContaining(file.toString());
      held.flush(); // which is open until here
    }
  }

  @Test
  void whatIsNotThereIsNotTriedAgain() {
    AtomicInteger busy = new AtomicInteger();
    assertThatThrownBy(
            () ->
                Spawn.start(
                    List.of(dir.resolve("nothing").toString()),
                    Duration.ofDays(1),
                    busy::incrementAndGet))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("error=2, ");
    assertThat(busy).hasValue(0);
  }

  private static void close(OutputStream stream) {
    try {
      stream.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
